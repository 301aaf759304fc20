"""What a guided sampler goes through, collected for adapters to learn from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide import guidance, paths, samplers
from jaxguide.losses import GuidedStates


def guided_trajectories(
    network: guidance.Network,
    noise: Array,
    label: Array,
    scale: Array,
    *,
    grid: Any,
    null_label: int,
) -> GuidedStates:
    """States and guided predictions along deterministic trajectories under CFG.

        x_next = alpha(t_next) denoised + sigma(t_next) noise,   guided at (x, t)

    Args:
        network: with classes and "no class".
        noise: unit Gaussian [B, *D], one trajectory each.
        label: int32 [B].
        scale: of classifier-free guidance [B], for example uniform in [1, 6].
        grid: strictly decreasing noise times [N + 1]; the last is not visited.
        null_label: the label that means "no class".

    Returns:
        N * B states; the first B are those at `grid[0]`.

    Raises:
        InputError: for a bad grid, or one that starts where the network's output does
            not determine the data.
    """
    grid = paths.check_grid("guided_trajectories", grid)
    conds = {"null": jnp.full_like(label, null_label)}
    x = noise * jnp.asarray(float(network.path.node(grid[0]).sigma), noise.dtype)
    states = []
    for now, then in zip(grid[:-1], grid[1:], strict=True):
        node = network.path.node(now)
        # One step of DDIM to t = 0 is the guided prediction of the data itself.
        denoised = samplers.generate(
            network,
            x / jnp.asarray(float(node.sigma), x.dtype),
            label,
            grid=[now, 0.0],
            sampler=samplers.ddim(),
            guidance=guidance.cfg(scale),
            conds=conds,
        )
        _, left = paths.to_pair("denoised", denoised, x, node)
        prediction = paths.from_pair(network.kind, denoised, left, node)
        t = jnp.full(len(label), now, jnp.float32)
        states.append(GuidedStates(x, t, label, scale, prediction))
        x = paths.corrupt(denoised, left, network.path.node(then))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *states)
