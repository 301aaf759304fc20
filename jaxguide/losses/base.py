"""What losses are made of: a noisy batch, dropped labels, changed targets, an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxguide import paths
from jaxguide.errors import InputError
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

    def inside(self, t_lo: float, t_hi: float) -> Array:
        """True where the noise time is in [t_lo, t_hi); bool [B]."""
        return (self.t >= t_lo) & (self.t < t_hi)


def corrupt(
    x0: Array, draws: Draws, *, path: paths.Path, t_sampling: TimeSampling
) -> Noisy:
    """Draws a noise time and noise for every example."""
    at, around = draws.split(2)
    return corrupt_at(x0, t_sampling(at), around, path=path)


def corrupt_at(x0: Array, t: Array, draws: Draws, *, path: paths.Path) -> Noisy:
    """Draws noise for every example, at noise times t [B]."""
    noise = draws.normal(x0.shape[1:]).astype(x0.dtype)
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


def add_change(
    target: Array,
    strength: Array,
    change: Callable[[], Array],
    *,
    on: float | Array = 1.0,
) -> Array:
    """`target + strength * sg(change())`.

    Args:
        target: [B, H, W, C].
        strength: float32 [B].
        change: a function without arguments, to [B, H, W, C].
        on: a number; where it is 0, traced or not, `change` is not evaluated.
    """

    def moved() -> Array:
        difference = lax.stop_gradient(change()).astype(target.dtype)
        return target + paths.expand(strength, target) * difference

    if isinstance(on, float | int):
        return moved() if on else target
    return lax.cond(jnp.any(on != 0), moved, lambda: target)


def check_scales(owner: str, scales: tuple[float, float]) -> None:
    """Raises an InputError unless `scales` is a range of guidance scales."""
    low, high = scales
    if not 1 <= low <= high:
        raise InputError(
            f"{owner}: need 1 <= scales[0] <= scales[1], got scales={scales!r}. "
            "1 is unguided."
        )


def check_share(owner: str, name: str, value: float) -> None:
    """Raises an InputError unless `value` is a probability."""
    if not 0 <= value <= 1:
        raise InputError(
            f"{owner}: need 0 <= {name} <= 1, got {name}={value!r}. 0.1 is common."
        )
