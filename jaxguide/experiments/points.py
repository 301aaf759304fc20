"""Points: the distributions of the experiments, samples of them, and their measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, samplers
from jaxguide.evaluate import toy
from jaxguide.oracle import GaussianMixture
from jaxguide.samplers import grids, sweep as sweep_over


def two_modes(std: float = 0.1) -> GaussianMixture:
    """Modes at -1 and 1 on a line, one class."""
    means = jnp.array([[-1.0], [1.0]])
    return GaussianMixture(means, jnp.full(2, std), (0, 0))


def corners(size: int, std: float = 1.0, blocks: int = 6) -> GaussianMixture:
    """Modes at -4 and 4 along every axis, each a class of its own.

    A dropped block adds a tenth of the variance of a mode.
    """
    axes = np.meshgrid(*[[-4.0, 4.0]] * size, indexing="ij")
    means = np.stack([axis.ravel() for axis in axes], axis=1).astype(np.float32)
    count = len(means)
    added = (0.1 * std**2,) * blocks
    return GaussianMixture(
        jnp.asarray(means),
        jnp.full(count, std, jnp.float32),
        tuple(range(count)),
        blocks=added,
    )


def swirl(pieces: int = 64, std: float = 0.05) -> GaussianMixture:
    """Two spirals about the origin, as `pieces` Gaussians along each; one class."""
    turns = np.linspace(0.25, 1.0, pieces, dtype=np.float32)
    angle = 2.5 * np.pi * turns
    arm = 2.0 * turns[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    means = np.concatenate([arm, -arm]).astype(np.float32)
    # Pieces that are longer, farther out, hold more of the points.
    weights = np.tile(turns, 2) / (2 * turns.sum())
    return GaussianMixture(
        jnp.asarray(means),
        jnp.full(2 * pieces, std, jnp.float32),
        (0,) * (2 * pieces),
        jnp.asarray(weights, jnp.float32),
    )


def draw(
    mixture: GaussianMixture, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points [count, n] and labels [count] of a mixture, all classes alike often."""
    label = jnp.arange(count, dtype=jnp.int32) % mixture.num_classes
    points = mixture.sample(jax.random.key(seed), label)
    return np.asarray(points), np.asarray(label)


def start(count: int, size: int, seed: int) -> jax.Array:
    """Unit noise [count, size]."""
    keys = samplers.sample_keys(seed, jnp.arange(count))
    return samplers.initial_noise(keys, (size,))


def sample(
    network: guidance.Network,
    noise: jax.Array,
    label: Any,
    *,
    null: int = 1,
    steps: int = 50,
    stop: float = 0.0,
    sampler: samplers.Sampler | None = None,
    transforms: Sequence[Any] = (),
    networks: Mapping[str, guidance.Network] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Samples [B, n] by Euler in equal steps from noise time 1 to `stop`.

    Args:
        network: what is sampled.
        noise: unit Gaussian [B, n].
        label: int, or one per sample [B].
        null: label of "no class".
        steps: from 1 to 0; those before `stop` are taken.
        stop: noise time, a multiple of 1 / steps.
        sampler: another one than Euler.
        transforms: of the chain that guides; none for no guidance.
        networks: further networks by name.
        seed: of what transforms and samplers draw.
    """
    count = len(noise)
    label = jnp.broadcast_to(jnp.asarray(label, jnp.int32), (count,))
    grid = grids.uniform(steps)
    return np.asarray(
        samplers.generate(
            network,
            noise,
            label,
            grid=grid[: round((1 - stop) * steps) + 1],
            sampler=sampler or samplers.euler(),
            guidance=guidance.chain(*transforms),
            conds={"null": jnp.full_like(label, null)},
            networks=networks,
            key=jax.random.key(seed),
            sample_keys=samplers.sample_keys(seed, jnp.arange(count)),
        )
    )


def sweep(
    network: guidance.Network,
    noise: jax.Array,
    guidances: Sequence[Any],
    *,
    steps: int,
    label: int = 0,
) -> np.ndarray:
    """Samples [P, B, n] of one class by Euler, one set for every guidance."""
    return np.asarray(
        sweep_over(
            network,
            noise,
            jnp.full(len(noise), label, jnp.int32),
            guidances=guidances,
            grid=grids.uniform(steps),
            sampler=samplers.euler(),
        )
    )


def outliers(mixture: GaussianMixture, points: np.ndarray, label: Any = 0) -> float:
    """Share of points farther than four standard deviations from every component."""
    label = np.broadcast_to(label, len(points))
    return toy.outlier_rate(toy.Mixture(mixture).place(points, label))


def coverage(mixture: GaussianMixture, points: np.ndarray, label: Any = 0) -> float:
    """Share of the components near which points lie."""
    label = np.broadcast_to(label, len(points))
    return toy.mode_coverage(toy.Mixture(mixture).place(points, label))


def density(mixture: GaussianMixture, line: np.ndarray, t: float, label: int = 0):
    """p_t(x | label) at every x of `line` [N], float64; on the linear path."""
    path = mixture.network().path
    labels = jnp.full(len(line), label, jnp.int32)
    points = jnp.asarray(line, jnp.float32)[:, None]
    logs = mixture.log_density(points, labels, path.node(t))
    return np.exp(np.asarray(logs, np.float64))


def normalised(line: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values >= 0 on an even line [N] as a density of integral 1."""
    return values / (values.sum() * (line[1] - line[0]))


def wasserstein(points: np.ndarray, line: np.ndarray, values: np.ndarray) -> float:
    """Wasserstein-1 of points on a line from a density on an even line [N].

    The integral of |F(x) - G(x)| over the line, which must hold nearly all of both.
    """
    step = line[1] - line[0]
    wanted = np.cumsum(normalised(line, values)) * step
    reached = np.searchsorted(np.sort(points.ravel()), line + step / 2) / points.size
    return float(np.abs(wanted - reached).sum() * step)
