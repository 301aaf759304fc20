"""Guidance by other conditions of the same network: negative, composed, nested, random.

All are contrasts of one network with itself under another of the sampler's conditions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._axes import spread
from jaxguide.guidance._base import NULL, RAW, Branch, Change, View
from jaxguide.guidance._chain import Chain, chain
from jaxguide.guidance._checks import is_whole
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._directions import project
from jaxguide.paths import Array


def negative(
    scale: Weight, *, cond: str = "negative", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """Guidance away from a negative condition instead of the null one.

        raw + (scale(t) - 1) * (raw - negative)

    Two of them with windows that meet, and two conditions, are a negative condition
    that depends on the phase of sampling.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        cond: name of the negative condition among the sampler's `conds`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the condition `cond`.

    Raises:
        InputError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: the negative prompt of Stable Diffusion practice; Eq. 6 of
        arXiv:2207.12598 with the null condition replaced. Negatives by phase:
        EchoMimicV3, arXiv:2507.03905 (known at second hand only).
    Differs from the source: nothing known.
    """
    away = Branch(cond=cond)
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="negative")


def compose(
    condition: str,
    weight: Weight,
    *,
    origin: str = "null",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """One more condition, added (AND, weight > 0) or removed (NOT, weight < 0).

        guided + weight(t) * (condition - origin)

    With `cfg(s)` to its left: null + s (raw - null) + weight (condition - null).

    Args:
        condition: name of an entry of the sampler's conditions.
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        origin: what the condition is compared with: "null", or "cond" for conditions
            that hold the main one and something more (a text and one neighbour of a
            graph, several of which are added up).
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `condition` and `origin`.

    Raises:
        InputError: if `weight` is not finite or the window is empty.

    NFE: +2 inside the window; `null` is shared with `cfg`, so +1 beside it.
    Source: Liu et al. 2022, Composable Diffusion, arXiv:2206.01714, Eqs. 11 and 13;
        with origin="cond" the graph terms of InstructG2I (arXiv:2410.07157), read
        against the authors' pipeline.
    Differs from the source: one condition is the raw prediction and has its own scale.
    """
    name = f"compose[{condition}]"
    toward, away = Branch(cond=condition), Branch(cond=origin)
    return contrast(weight, away, toward=toward, t_lo=t_lo, t_hi=t_hi, name=name)


def nested(
    scales: tuple[Weight, ...],
    *,
    via: tuple[str, ...] = ("image",),
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Chain:
    """Guidance in several stages, each condition holding the one before and more.

        null + scales[0] (via[0] - null) + scales[1] (via[1] - via[0]) + ...
             + scales[-1] (raw - via[-1])

    The raw prediction sees everything. With all scales 1 the sum is the raw prediction,
    exactly. InstructPix2Pix is `nested((1.5, 7.5), via=("image",))`: the condition
    `image` has the image and no text.

    Args:
        scales: one number more than `via`, outermost first, each neutral at 1; numbers,
            arrays [B], functions of noise time, `Schedule`s.
        via: names of the conditions between `null` and the full one.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A chain of one contrast per stage; it needs `null` and the conditions in `via`.

    Raises:
        InputError: if the numbers of scales and conditions do not fit, a scale is not
            finite, or the window is empty.

    NFE: +1 per condition in `via` and +1 for `null`, inside the window, where the
        scales beside it are not 1.
    Source: Brooks et al. 2022, InstructPix2Pix, arXiv:2211.09800, Eq. 3; several
        levels: InstructG2I, arXiv:2410.07157.
    Differs from the source: nothing known. InstructG2I compares every graph condition
        with the text alone: that is `cfg` with `compose(..., origin="cond")`.
    """
    several = isinstance(scales, tuple | list) or getattr(scales, "ndim", 0) > 0
    if not several or isinstance(via, str):
        raise InputError(
            f"nested: need tuples of scales and names, got scales={scales!r}, "
            f"via={via!r}. InstructPix2Pix is nested((1.5, 7.5), via=('image',))."
        )
    scales, via = tuple(scales), tuple(via)
    if len(scales) != len(via) + 1:
        raise InputError(
            f"nested: need one scale more than conditions in via, got scales={scales!r}"
            f", via={via!r}. The first scale belongs to via[0] - null."
        )
    branches = [Branch(cond=name) for name in ("null", *via)] + [RAW]
    stages = zip(scales, branches[:-1], branches[1:], strict=True)
    return chain(
        *(
            contrast(
                scale,
                away,
                toward=toward,
                neutral=1.0,
                t_lo=t_lo,
                t_hi=t_hi,
                name="nested",
            )  # fmt: skip
            for scale, away, toward in stages
        )
    )


def perp_neg(
    weight: Weight, *, negative: str = "negative", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """Removes a negative condition, but only what does not oppose the main one.

        guided - weight(t) * perp(negative - null)

    `perp` is the part perpendicular to `raw - null`, per sample: a negative condition
    that overlaps with the wanted one no longer weakens it. Stands beside `cfg`; several
    negative conditions are several transforms. The same in every prediction space.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
            The paper's weight of a negative prompt is multiplied by its CFG scale:
            `chain(cfg(s), perp_neg(s * w))`.
        negative: name of the negative condition.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `negative` and `null`.

    Raises:
        InputError: if `weight` is not finite or the window is empty.

    NFE: +2 inside the window; `null` is shared with `cfg`, so +1 beside it.
    Source: Armandpour et al. 2023, Perp-Neg, arXiv:2304.04968, as ported in ComfyUI
        (nodes_perpneg.py); the paper's formula is known at second hand only.
    Differs from the source: ComfyUI takes one inner product over the whole batch, so
        that a sample depends on its neighbours; here it is per sample.
    """
    return contrast(
        weight, Branch(cond=negative), toward=NULL, t_lo=t_lo, t_hi=t_hi,
        name="perp_neg", maps=(project(0.0, about=(RAW, NULL)),),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RandomCondition(Change):
    """A condition drawn anew, independent of x: labels, embeddings, or by `draw`."""

    num_classes: int = 0
    draw: Callable[[Array, Any], Any] | None = None

    name = "icg"
    own = True

    def cond(self, cond: Any, here: View) -> Any:
        """A condition like `cond`, one independent draw per sample."""
        key = here.key("icg")
        if self.draw is not None:
            return self.draw(key, cond)
        leaves, tree = jax.tree.flatten(cond)
        keys = jax.random.split(key, len(leaves))
        drawn = [self._leaf(*pair) for pair in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(tree, drawn)

    def _leaf(self, key: Array, leaf: Array) -> Array:
        if self.num_classes and jnp.issubdtype(leaf.dtype, jnp.integer):
            return jax.random.randint(key, leaf.shape, 0, self.num_classes, leaf.dtype)
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.ndim < 2:
            raise InputError(
                "icg: need labels and num_classes, or embeddings [B, ...], got "
                f"num_classes={self.num_classes!r} for a condition of {leaf.dtype} "
                f"{list(leaf.shape)}. Pass num_classes=, or draw=(key, cond) -> cond."
            )
        return jax.random.normal(key, leaf.shape, leaf.dtype) * spread(leaf)


def icg(
    scale: Weight,
    *,
    num_classes: int = 0,
    draw: Callable[[Array, Any], Any] | None = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Independent condition guidance (ICG): away from a random condition.

        raw + (scale(t) - 1) * (raw - random)

    For networks without a null condition: a condition that is independent of x carries
    no information about it either. One fresh draw per step and sample.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        num_classes: labels are drawn uniformly from 0 .. num_classes - 1; 0 for
            conditions that are embeddings [B, ...], which become Gaussian noise with
            the standard deviation of each sample's own embedding.
        draw: `(key, cond) -> cond` instead, hashable, for anything else.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a key.

    Raises:
        InputError: if `scale` is not finite, `num_classes` is negative or given beside
            `draw`, or the window is empty; at the first trace for integer conditions
            without `num_classes`, or without a key.

    NFE: +1 inside the window.
    Source: Sadat et al. 2024, arXiv:2407.02687, Sec. 4 (ICG).
    Differs from the source: the random label may be the sample's own, as under the
        uniform law; the mean of the noise in place of embeddings is 0.
    """
    whole = is_whole(num_classes) and num_classes >= 0
    if not whole or (num_classes and draw is not None):
        raise InputError(
            "icg: need num_classes >= 0, and not beside draw, got "
            f"num_classes={num_classes!r}, draw={draw!r}."
        )
    if draw is not None and not callable(draw):
        raise InputError(
            f"icg: need a function (key, cond) -> cond for draw, got draw={draw!r}."
        )
    away = Branch(change=RandomCondition(num_classes, draw))
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="icg")
