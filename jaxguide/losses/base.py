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
    """Mean over all but the first axis of the squared difference; float32 [B].

    Raises:
        InputError: if the shapes differ, which would be broadcast without a word.
    """
    if getattr(prediction, "shape", None) != target.shape:
        got = getattr(prediction, "shape", type(prediction).__name__)
        raise InputError(
            f"loss: need a prediction shaped like x, got {got} for x.shape="
            f"{target.shape}. A network with a learnt variance is for ddpm_hybrid."
        )
    error = (prediction - target).astype(jnp.float32)
    return jnp.square(error).mean(axis=tuple(range(1, error.ndim)))


WEIGHTINGS = ("none", "velocity", "likelihood")


def kind_error(
    kind: str, prediction: Array, target: Array, node: paths.Node, weighting: str
) -> Array:
    """Squared error of a prediction of `kind`, weighted; float32 [B].

    A score counts sigma^2 times, which makes it the error of the noise: its own target
    is noise / sigma, whose square has no mean over t.

        none        1
        velocity    (alpha s' - sigma a')^2 / alpha^2        the error of the velocity
        likelihood  (alpha s' - sigma a') / (alpha sigma)    that of the bound

    the last two for noise and score.
    """
    if kind == "score":
        sigma = paths.expand(node.sigma, prediction)
        prediction, target = sigma * prediction, sigma * target
    error = squared_error(prediction, target)
    if weighting == "none":
        return error
    rate = (node.alpha * node.dsigma - node.sigma * node.dalpha) / node.alpha
    weight = jnp.square(rate) if weighting == "velocity" else rate / node.sigma
    return weight.astype(jnp.float32) * error


def check_weighting(owner: str, kind: str, weighting: str) -> None:
    """Raises an InputError unless `kind_error` has this weighting for this kind."""
    if weighting not in WEIGHTINGS:
        raise InputError(
            f"{owner}: need weighting in {WEIGHTINGS}, got weighting={weighting!r}."
        )
    if weighting != "none" and kind not in ("noise", "score"):
        raise InputError(
            f"{owner}: need kind 'noise' or 'score' for a weighting, got "
            f"kind={kind!r}, weighting={weighting!r}. Use weighting='none'."
        )


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
