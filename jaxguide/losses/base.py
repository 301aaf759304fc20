"""What every loss starts from: a noisy batch, dropped labels, a squared error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxguide import paths
from jaxguide.losses.draws import Draws, TimeSampling

Batch = tuple[Array, Array]  # x0 [B, H, W, C] of about unit variance, label int32 [B]
Predict = Callable[..., Any]  # (x, t, label, **inputs) -> prediction


class Noisy(NamedTuple):
    """A batch at random noise times: x = alpha(t) x0 + sigma(t) noise.

    Attributes:
        x: [B, H, W, C].
        t: noise times [B].
        x0, noise: what `x` is made of.
        node: the coefficients of the path at `t`.
    """

    x: Array
    t: Array
    x0: Array
    noise: Array
    node: paths.Node

    def target(self, kind: str) -> Array:
        """What a prediction of `kind` should be, [B, H, W, C]."""
        return paths.target(kind, self.x0, self.noise, self.node)


def corrupt(
    x0: Array, draws: Draws, *, path: paths.Path, t_sampling: TimeSampling
) -> Noisy:
    """Draws a noise time and noise for every example."""
    at, around = draws.split(2)
    t = t_sampling(at)
    noise = around.normal(x0.shape[1:], x0.dtype)
    node = path.node(t)
    return Noisy(paths.corrupt(x0, noise, node), t, x0, noise, node)


def drop_labels(draws: Draws, label: Array, rate: float, null_label: int) -> Array:
    """Replaces each label by `null_label` with probability `rate`; int32 [B]."""
    null = jnp.asarray(null_label, label.dtype)
    return jnp.where(draws.uniform() < rate, null, label)


def squared_error(prediction: Array, target: Array) -> Array:
    """Mean over all but the first axis of the squared difference; float32 [B]."""
    error = (prediction - target).astype(jnp.float32)
    return jnp.square(error).mean(axis=tuple(range(1, error.ndim)))


def check_share(owner: str, name: str, value: float) -> None:
    """Raises a ValueError unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise ValueError(
            f"{owner}: need 0 <= {name} <= 1, got {name}={value!r}. 0.1 is common."
        )
