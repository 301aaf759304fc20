"""Adaptive guidance: CFG that stops by itself when it no longer matters."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxguide.guidance import schedules
from jaxguide.guidance._axes import norm
from jaxguide.guidance._base import NULL, RAW, Branch, Guided, View
from jaxguide.guidance._contrast import Weight, per_sample
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import (
    NATIVE,
    check_named_space,
    check_number,
    pytree,
)
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, widen


class AdaptiveState(NamedTuple):
    """The memory of `adaptive_guidance`."""

    done: Array  # [B] bool; True for a sample that needs no guidance any more


@pytree("scale", "threshold")
class AdaptiveGuidance(Transform):
    """See `adaptive_guidance`."""

    scale: Schedule
    threshold: Schedule
    space: str = NATIVE

    name = "adaptive_guidance"

    gated = True

    def init(self, x: Array) -> AdaptiveState:
        """Every sample of `x` [B, *D] is guided."""
        return AdaptiveState(jnp.zeros(x.shape[:1], bool))

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The null prediction."""
        del network
        return (NULL,)

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The scale."""
        return ((self.scale, 1.0),)

    def gate(self, state: AdaptiveState) -> Array:
        """Whether any sample still needs the null prediction."""
        return ~jnp.all(state.done)

    def apply(
        self, guided: Guided, state: Any, here: View, *, live: bool
    ) -> tuple[Guided, AdaptiveState]:
        """CFG for the samples that need it; then looks which still will."""
        done = state.done & ~here.step.restart
        if not live:
            return guided, AdaptiveState(done)
        # Per sample: the branch is evaluated as long as any sample needs it, and must
        # not change the others, whose result would depend on the batch.
        weight = jnp.where(done, 0.0, self.scale.number - 1.0)
        change = here[RAW] - here[NULL]
        guided = guided.plus(weight, change)
        likeness = self._cosine(here)
        # Judged after the step: this step's null prediction is there already.
        done = done | (likeness > self.threshold.number.astype(likeness.dtype))
        return guided, AdaptiveState(done)

    def _cosine(self, here: View) -> Array:
        """Cosine between raw and null per sample, [B]."""
        raw, null = (widen(here.read(b, self.space)) for b in (RAW, NULL))
        size = norm(raw) * norm(null)
        inner = per_sample(jnp.sum, raw, null)
        return (inner / jnp.where(size > 0, size, 1.0)).reshape(-1)


def adaptive_guidance(
    scale: Weight,
    *,
    threshold: Weight = 0.991,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = NATIVE,
) -> AdaptiveGuidance:
    """Adaptive guidance: CFG until raw and null predictions agree, then none.

        raw + (scale(t) - 1) * (raw - null)     until cos(raw, null) > threshold

    Each sample stops for itself, in the step after the one in which it is seen, and for
    good; so it does not depend on its batch. The null prediction is no longer
    evaluated once the whole batch has stopped: that is decided while sampling.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        threshold: cosine above which a sample stops, -1 to 1; 1 is CFG.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the cosine is taken. "native" is noise for the source's networks;
            in "noise" a flow model's predictions coincide at t = 1, where both are x.

    Returns:
        A transform whose state is one bool per sample [B]; it needs `null`.

    Raises:
        InputError: for a number that is not finite, an unknown space, or an empty
            window.

    NFE: +1 inside the window until the whole batch has stopped; `Cost` gives both ends
        of that range. Under vmap it is evaluated as long as one of the values needs it.
    Source: Castillo et al. 2023, Adaptive Guidance, arXiv:2312.12487 (threshold 0.991,
        20 steps); the formula is known at second hand only.
    Differs from the source: the flag is per sample, the saving per batch. LinearAG, its
        regression of the null prediction, is `linear_ag`.
    """
    check_number("adaptive_guidance", "scale", scale)
    check_number("adaptive_guidance", "threshold", threshold)
    check_named_space("adaptive_guidance", space)
    schedule = schedules.window(scale, t_lo=t_lo, t_hi=t_hi, outside=1.0)
    return AdaptiveGuidance(schedule, schedules.constant(threshold), space)
