"""Adaptive projected guidance, alone and after a phase of CFG."""

from typing import Any

from jaxguide.errors import InputError
from jaxguide.guidance._axes import Axes
from jaxguide.guidance._base import NULL, Branch, Guided, View
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import BASES, Contrast, DirectionMap, Weight, contrast
from jaxguide.guidance._directions import (
    clip_norm,
    momentum as momentum_map,
    project,
)
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import check_named_space, pytree
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array


def apg(
    scale: Weight,
    *,
    momentum: Weight | None = -0.5,
    radius: Weight | None = 5.0,
    parallel: Weight = 0.0,
    base: str = "toward",
    axes: Axes = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = "denoised",
) -> Contrast:
    """Adaptive projected guidance (APG): CFG at high scales without oversaturation.

        raw + (scale(t) - 1) * (perp + parallel * along),
        perp + along = clip(raw - null + momentum * average, radius)    along || raw

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        momentum: weight of the running average of differences, negative in the paper;
            None for none.
        radius: largest length of the difference, per sample; None for no limit. It
            grows with the number of values in a sample.
        parallel: what stays of the part along the raw prediction.
        base: what the scaled direction d is added to: "toward" raw + (scale - 1) d,
            "away" null + scale d, "full" raw + scale d, which is off at scale 0.
        axes: axes of x [B, *D] that lengths and projections are taken over; None for
            all but the first, as in the paper. The `norm_dim` of diffusers.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where all this happens, one of `SPACES`.

    Returns:
        A transform whose state is one float32 array like x [B, *D], or none without
        momentum; it needs the condition `null`.

    Raises:
        InputError: for a number that is not finite, a negative radius, an unknown base
            or space, axes with the first, or an empty window.

    NFE: +1 inside the window. Memory: one float32 copy of x with momentum.
    Source: Sadat et al. 2024, arXiv:2410.02416, Algorithm 1; constants (radius, beta):
        DiT-XL/2 at scale 4 (5, -0.5), SD 2.1 at 10 (7.5, -0.75), SDXL at 15 (15, -0.5).
    Differs from the source: three published bases. `base="away", space="native"` is
        diffusers' default (momentum None, radius 15, parallel 1), "full" its original
        formulation and the net effect of ComfyUI's node (on denoised, radius 5,
        momentum 0, parallel 1). The average moves in live steps only, as in diffusers.
    """
    check_named_space("apg", space)
    maps = _apg_maps(momentum, radius, parallel, axes)
    neutral = 0.0 if base == "full" else 1.0
    return contrast(
        scale, NULL, neutral=neutral, t_lo=t_lo, t_hi=t_hi, space=space, name="apg",
        maps=maps, base=base,
    )  # fmt: skip


def _apg_maps(
    momentum: Weight | None, radius: Weight | None, parallel: Weight, axes: Axes
) -> tuple[DirectionMap, ...]:
    maps: list[DirectionMap] = []
    if momentum is not None:
        maps.append(momentum_map(momentum))
    if radius is not None:
        maps.append(clip_norm(radius, axes=axes))
    return (*maps, project(parallel, axes=axes))


@pytree("first", "then")
class Phases(Transform):
    """Two contrasts with windows of their own that are live together.

    So the maps of the second remember what happens while the first one acts.
    """

    first: Contrast
    then: Contrast

    def init(self, x: Array) -> Any:
        """The state of the second contrast."""
        return self.then.init(x)

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The branches of both."""
        return (*self.first.branches(network), *self.then.branches(network))

    def live(self, t: float, index: int = 0) -> bool:
        """True where either is."""
        return self.first.live(t, index) or self.then.live(t, index)

    def apply(
        self, guided: Guided, state: Any, here: View, *, live: bool
    ) -> tuple[Guided, Any]:
        """Adds both; each is bitwise neutral outside its own window."""
        guided, _ = self.first.apply(guided, (), here, live=live)
        return self.then.apply(guided, state, here, live=live)


def apg_mix(
    scale: Weight = 3.5,
    apg_scale: Weight = 10.0,
    *,
    t_switch: float = 0.9,
    momentum: Weight | None = -0.5,
    radius: Weight | None = 10.0,
    parallel: Weight = 0.0,
    base: str = "toward",
    axes: Axes = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = "denoised",
) -> Phases:
    """CFG near the noise, then APG, whose momentum runs through both phases.

        cfg(scale)      for t >= t_switch
        apg(apg_scale)  below

    Args:
        scale: of CFG, neutral at 1; number, array [B], function, `Schedule`.
        apg_scale: of APG, likewise.
        t_switch: noise time between the phases, in (t_lo, t_hi).
        momentum, radius, parallel, base, axes, space: as in `apg`; base "full" is
            refused.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform with the state of `apg`; it needs the condition `null`.

    Raises:
        InputError: if the times are not ordered, the base is "full", or as `apg`.

    NFE: +1 inside the window. Memory: one float32 copy of x with momentum.
    Source: diffusers' AdaptiveProjectedMixGuidance, used by HunyuanImage 2.1 (scales
        3.5 and 10, momentum -0.5, radius 10; the first 6 steps of 50 are CFG).
    Differs from the source: a noise time instead of a step index, so the default 0.9 is
        another one. Diffusers is `base="away", space="native"`.
    """
    check_named_space("apg_mix", space)
    t_lo, t_switch, t_hi = (
        static_number("apg_mix", name, t)
        for name, t in (("t_lo", t_lo), ("t_switch", t_switch), ("t_hi", t_hi))
    )
    if not t_lo < t_switch < t_hi:
        raise InputError(
            f"apg_mix: need t_lo < t_switch < t_hi, got t_switch={t_switch!r}."
        )
    if base not in BASES[:2]:
        raise InputError(f"apg_mix: need base in {BASES[:2]}, got base={base!r}.")
    first = contrast(scale, NULL, neutral=1.0, t_lo=t_switch, t_hi=t_hi, name="apg_mix")
    then = contrast(
        apg_scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=t_switch, space=space,
        name="apg_mix", maps=_apg_maps(momentum, radius, parallel, axes), base=base,
    )  # fmt: skip
    return Phases(first, then)
