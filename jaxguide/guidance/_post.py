"""Maps of the guided prediction itself: they act on what stands to their left."""

import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._axes import Axes, check_axes, norm, sample_axes, spread
from jaxguide.guidance._base import RAW, Guided, View
from jaxguide.guidance._contrast import Weight, to_columns
from jaxguide.guidance._numbers import NATIVE, check_named_space, check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, widen

RULES = ("at_most", "equal")


@pytree("weight")
class Rescale(Transform):
    """See `rescale`."""

    weight: Schedule

    name = "rescale"
    on_result = True

    def idle(self) -> bool:
        """A raw prediction has the standard deviation of the raw prediction."""
        return True

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Moves the running result towards its rescaled form."""
        wanted, std = _std(here[RAW]), _std(guided.prediction)
        ratio = jnp.where(std > 0, wanted / jnp.where(std > 0, std, 1.0), 1.0)
        change = (ratio - 1).astype(guided.prediction.dtype) * guided.prediction
        return guided.plus(self.weight.number, change)


def _std(prediction: Array) -> Array:
    """Standard deviation per sample in float32, shaped to broadcast."""
    # float32: in bfloat16 a sum over a whole image has two or three digits.
    # Not jnp.std, whose gradient at 0 is NaN: a network whose last layer is zero, as
    # before training, has a constant prediction.
    return spread(prediction.astype(jnp.float32))


def rescale(weight: Weight = 0.7, *, t_lo: float = 0.0, t_hi: float = 1.0) -> Rescale:
    """Gives the guided prediction the standard deviation of the raw one, in part.

        guided * (1 - weight + weight * std(raw) / std(guided))

    Standard deviations are per sample, over all other axes. Not linear: it acts on what
    stands to its left in the chain. Acts on the raw network output, whatever its kind.

    Args:
        weight: 0 (off) to 1 (full match); number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; off outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if a number is outside [0, 1] or the window is empty.

    NFE: +0.
    Source: Lin et al. 2023, arXiv:2305.08891, Eqs. 15 and 16 (weight 0.7).
    Differs from the source: nothing known.
    """
    check_number("rescale", "weight", weight, low=0, high=1)
    return Rescale(schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0))


@pytree("weight", "limit")
class Renorm(Transform):
    """See `renorm`."""

    weight: Schedule
    limit: Schedule
    rule: str = "at_most"
    axes: tuple[int, ...] | None = None
    space: str = NATIVE

    name = "renorm"
    on_result = True

    def idle(self) -> bool:
        """True where the limit is known to leave the raw length alone."""
        limit, constant = self.limit.value, self.limit.shape is None
        known = isinstance(limit, int | float | np.ndarray | np.generic)
        if not known or not constant or self.limit.windows:
            return False
        return bool(np.all(limit >= 1 if self.rule == "at_most" else limit == 1))

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Moves the running result towards the one of the wanted length."""
        value = here.convert(guided.prediction, NATIVE, self.space)
        size = norm(widen(value), self.axes)
        wanted = norm(widen(here.read(RAW, self.space)), self.axes)
        wanted = to_columns(self.limit.number, wanted) * wanted
        ratio = jnp.where(size > 0, wanted / jnp.where(size > 0, size, 1.0), 1.0)
        ratio = jnp.minimum(ratio, 1.0) if self.rule == "at_most" else ratio
        change = (ratio - 1).astype(value.dtype) * value
        change = here.to_native(change, self.space)
        return guided.plus(self.weight.number, change)


def renorm(
    weight: Weight = 1.0,
    *,
    limit: Weight = 1.0,
    rule: str = "at_most",
    axes: Axes = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = NATIVE,
) -> Renorm:
    """Gives the guided prediction the length of the raw one, at most or exactly.

        guided * (1 + weight * (ratio - 1))
        ratio = limit |raw| / |guided|, with rule "at_most" never above 1

    Not linear: it acts on what stands to its left in the chain. Qwen-Image, Lumina 2:
    `renorm(rule="equal", axes=(-1,))`, per token or pixel over channels; Z-Image:
    `renorm(limit=k)`; ComfyUI's RenormCFG: `renorm()`, its CFGNorm:
    `renorm(axes=(-1,), space="denoised")`.

    Args:
        weight: 0 (off) to 1 (full); number, array [B], function, `Schedule`.
        limit: multiple of the raw length that is allowed or set.
        rule: "at_most" only shortens, "equal" also lengthens.
        axes: axes of x [B, *D] that a length is taken over; None for all but the first.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; off outside.
        space: where lengths are compared, one of `SPACES`.

    Returns:
        A transform without state.

    Raises:
        InputError: for an unknown rule or space, a negative limit, a number that is not
            finite, axes with the first, or an empty window.

    NFE: +0.
    Source: the pipelines of Qwen-Image, Lumina 2 and Z-Image in diffusers, the nodes
        CFGNorm and RenormCFG of ComfyUI; no paper.
    Differs from the source: ComfyUI's CFGNorm has a strength after the clipping, which
        multiplies the result; it is not offered.
    """
    check_number("renorm", "weight", weight)
    check_number("renorm", "limit", limit, low=0)
    check_named_space("renorm", space)
    if rule not in RULES:
        raise InputError(f"renorm: need rule in {RULES}, got rule={rule!r}.")
    schedule = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    axes = check_axes("renorm", axes)
    return Renorm(schedule, schedules.constant(limit), rule, axes, space)


@pytree("weight", "limit", "percentile")
class DynamicThreshold(Transform):
    """See `dynamic_threshold`."""

    weight: Schedule
    limit: Schedule
    percentile: Schedule

    name = "dynamic_threshold"
    on_result = True

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Moves the running result towards its thresholded form."""
        value = here.convert(guided.prediction, NATIVE, "denoised")
        wide = widen(value)
        level = _quantile(jnp.abs(wide), self.percentile.number)
        limit = to_columns(self.limit.number, level)
        level = jnp.maximum(level, limit)
        clipped = jnp.clip(wide, -level, level) * (limit / level)
        change = here.to_native((clipped - wide).astype(value.dtype), "denoised")
        return guided.plus(self.weight.number, change)


def dynamic_threshold(
    weight: Weight = 1.0,
    *,
    percentile: Weight = 0.995,
    limit: Weight = 1.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> DynamicThreshold:
    """Imagen's dynamic thresholding: squeezes denoised images back into their range.

        denoised <- clip(denoised, -s, s) * limit / s
        s = max(limit, percentile of |denoised|)        per sample

    For pixels in [-limit, limit]; latents have no such range. Not linear: it acts on
    what stands to its left in the chain.

    Args:
        weight: 0 (off) to 1 (full); number, array [B], function, `Schedule`.
        percentile: share of values left unclipped, in (0, 1]; number or array [B].
        limit: largest absolute value of the data, above 0.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; off outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if a number is out of range or the window empty.

    NFE: +0.
    Source: Saharia et al. 2022, Imagen, arXiv:2205.11487, Sec. 2.3 (percentile 0.995).
    Differs from the source: `weight`, and a `limit` other than 1.
    """
    check_number("dynamic_threshold", "weight", weight)
    check_number("dynamic_threshold", "limit", limit, above=0)
    hint = "99.5 % is 0.995."
    check_number(
        "dynamic_threshold", "percentile", percentile, above=0, high=1, hint=hint
    )
    schedule = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    limit, percentile = schedules.constant(limit), schedules.constant(percentile)
    return DynamicThreshold(schedule, limit, percentile)


def _quantile(value: Array, share: Array) -> Array:
    """The `share` [] or [B] quantile of each sample of [B, *D], linear; [B, 1, ...]."""
    # By hand: `jnp.quantile` takes one share for all samples.
    sample_axes(value)
    flat = jnp.sort(value.reshape(len(value), -1), axis=1)
    last = flat.shape[1] - 1
    place = jnp.broadcast_to(jnp.asarray(share, flat.dtype), flat.shape[:1]) * last
    low = jnp.clip(jnp.floor(place), 0, last).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    rows = jnp.stack([low, high], axis=1)
    ends = jnp.take_along_axis(flat, rows, axis=1)
    rest = place - low.astype(flat.dtype)
    value_there = ends[:, 0] * (1 - rest) + ends[:, 1] * rest
    return value_there.reshape((-1,) + (1,) * (value.ndim - 1))
