"""Frequency bands of a difference: direction maps, and guidance with a scale for each.

Axes are channels last: all but the first (batch) and the last (channels) are spatial,
so that [B, n, C], [B, H, W, C] and [B, T, H, W, C] need no setting; [B, n] has one
spatial axis. Bands are counted from the highest frequency to the lowest.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._axes import check_axes, sample_axes
from jaxguide.guidance._base import NULL
from jaxguide.guidance._chain import Chain, chain
from jaxguide.guidance._contrast import (
    DirectionMap,
    Sides,
    Weight,
    contrast,
    to_columns,
)
from jaxguide.guidance._directions import parallel_part
from jaxguide.guidance._numbers import NATIVE, check_named_space, check_number, pytree
from jaxguide.guidance._pyramid import pyramid, resize, up
from jaxguide.guidance._schedule import Schedule
from jaxguide.paths import Array


@pytree("weights", "parallel")
class Laplacian(DirectionMap):
    """See `laplacian`."""

    weights: tuple[Schedule | None, ...]
    parallel: tuple[Schedule | None, ...]  # one per level
    axes: tuple[int, ...] | None = None

    def map(self, difference: Array, sides: Sides) -> Array:
        """The weighted bands, put together again."""
        axes = spatial_axes(difference, self.axes)
        bands = pyramid(difference, len(self.weights), axes)
        about = bands
        if any(one is not None for one in self.parallel):
            about = pyramid(sides.toward, len(self.weights), axes)
        levels = zip(self.weights, self.parallel, bands, about, strict=True)
        total = None
        for weight, parallel, (band, _), (axis, sizes) in reversed(tuple(levels)):
            # Enlarged level by level, as the pyramid was taken apart. Before the first
            # band that is kept there is nothing to enlarge.
            total = None if total is None else resize(total, sizes, axes, up)
            if weight is None:
                continue
            if parallel is not None:
                along = parallel_part(band, axis)
                band = band - (1 - to_columns(parallel.number, along)) * along
            band = to_columns(weight.number, band) * band
            total = band if total is None else total + band
        return jnp.zeros_like(difference) if total is None else total


def laplacian(
    weights: tuple[Weight | None, ...],
    *,
    parallel: Weight | None | tuple[Weight | None, ...] = None,
    axes: tuple[int, ...] | None = None,
) -> Laplacian:
    """Weighs the levels of a Laplacian pyramid of the difference.

        sum_l weights[l] * level_l

    A level is what the image has over the next coarser one: blurred with the 5-tap
    binomial kernel at mirrored borders, halved (rounding down) and enlarged again. Any
    shape will do; a side of 1 stays. All weights 1 give the difference back.

    Args:
        weights: one per level from the highest frequency to the lowest; None leaves a
            level out.
        parallel: what stays of the part of each level along the same level of the
            prediction that the contrast pushes towards; None for all, at no cost. One
            for all levels, or a tuple with one per level.
        axes: spatial axes of x; None for channels last.

    Raises:
        InputError: if there is no weight, `parallel` has another number of levels, or a
            number is not finite.
    """
    weights = _weights("laplacian", weights)
    return Laplacian(
        weights,
        _weights("laplacian", _per_level("laplacian", parallel, len(weights))),
        check_axes("laplacian", axes),
    )


def _per_level(name: str, parallel: Any, levels: int) -> tuple[Weight | None, ...]:
    """One per level, of one for all or of a tuple."""
    each = tuple(parallel) if isinstance(parallel, tuple | list) else (parallel,)
    each = each if isinstance(parallel, tuple | list) else each * levels
    if len(each) != levels:
        raise InputError(
            f"{name}: need one parallel weight, or one for each of {levels} levels, "
            f"got parallel={parallel!r}."
        )
    for one in each:
        if one is not None:
            check_number(name, "parallel", one)
    return each


@pytree("weights")
class Frequency(DirectionMap):
    """See `frequency`."""

    weights: tuple[Schedule | None, ...]
    cutoffs: tuple[float, ...]
    axes: tuple[int, ...] | None = None

    def map(self, difference: Array, sides: Sides) -> Array:
        """The weighted bands, put together again."""
        del sides
        axes = spatial_axes(difference, self.axes)
        radius = _radius(difference.shape, axes)
        edges = (np.inf, *self.cutoffs, 0.0)
        gain = jnp.zeros((), difference.dtype)
        for weight, high, low in zip(self.weights, edges, edges[1:], strict=False):
            if weight is None:
                continue
            # Half-open, so that every frequency is in one band and none is counted
            # twice; the first band has no upper edge and takes in the corners.
            inside = jnp.asarray((low <= radius) & (radius < high), difference.dtype)
            # One gain per sample, if the weight has one.
            gain = to_columns(weight.number, difference) * inside[None] + gain
        spectrum = jnp.fft.fftn(difference, axes=axes)
        return jnp.fft.ifftn(spectrum * gain.astype(spectrum.dtype), axes=axes).real


def frequency(
    weights: tuple[Weight | None, ...],
    cutoffs: tuple[float, ...],
    *,
    axes: tuple[int, ...] | None = None,
) -> Frequency:
    """Weighs radial bands of the difference's Fourier spectrum.

        sum_b weights[b] * band_b       band_b: cutoffs[b] <= |f| < cutoffs[b - 1]

    Args:
        weights: one per band from the highest frequency to the lowest; None leaves a
            band out.
        cutoffs: falling edges between the bands in cycles per pixel, one fewer than
            weights; a side's highest frequency is 0.5.
        axes: spatial axes of x; None for channels last.

    Raises:
        InputError: if the cut-offs do not fall or do not fit the weights, or a number
            is not finite.
    """
    weights = _weights("frequency", weights)
    _check_cutoffs("frequency", cutoffs, len(weights))
    edges = tuple(float(edge) for edge in cutoffs)
    return Frequency(weights, edges, check_axes("frequency", axes))


def fdg(
    scales: tuple[Weight, ...] = (10.0, 5.0),
    *,
    parallel: Weight | None | tuple[Weight | None, ...] = None,
    axes: tuple[int, ...] | None = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = "denoised",
) -> Chain:
    """Frequency-decoupled guidance (FDG): CFG with a scale per pyramid level.

        level_l(raw) + (scale_l(t) - 1) * level_l(raw - null)         for every l

    A level of scale 1 is off. For windows of their own put two `fdg` into a chain.

    Args:
        scales: dimensionless, each neutral at 1, from the highest frequency to the
            lowest; one is CFG, two are the paper's.
        parallel: what stays of each level's part along the raw prediction's level;
            None for all. One for all levels, or a tuple with one per level.
        axes: spatial axes of x; None for channels last.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the bands are taken; matters with `parallel` only.

    Returns:
        A chain of one contrast per level, without state; it needs `null`.

    Raises:
        InputError: if there is no scale, `parallel` has another number of levels, or as
            `contrast`.

    NFE: +1 inside the window.
    Source: Sadat et al. 2025, arXiv:2506.19713, Algorithms 1 and 2 (SDXL: 10 and 5), as
        in diffusers with kornia's pyramid.
    Differs from the source: any shape, without kornia's padding to a power of two that
        diffusers does not take off again. Diffusers is `space="native"`, adds to the
        null prediction's level also with `parallel` (its original formulation does
        not), and fails where a level is off.
    """
    scales = _scales("fdg", scales)
    parallel = _per_level("fdg", parallel, len(scales))
    return _banded(
        "fdg", scales, space, (t_lo, t_hi),
        lambda one_hot: laplacian(one_hot, parallel=parallel, axes=axes),
    )  # fmt: skip


def frequency_cfg(
    scales: tuple[Weight, ...] = (25.0, 7.5),
    *,
    cutoffs: tuple[float, ...] = (0.25,),
    axes: tuple[int, ...] | None = None,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Chain:
    """Frequency-aware CFG (FA-CFG): CFG with a scale per band of the spectrum.

        band_b(raw) + (scale_b(t) - 1) * band_b(raw - null)           for every b

    Linear, so the same in every prediction space.

    Args:
        scales: dimensionless, each neutral at 1, from the highest frequency to the
            lowest.
        cutoffs: falling edges between the bands in cycles per pixel, one fewer.
        axes: spatial axes of x; None for channels last.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A chain of one contrast per band, without state; it needs `null`.

    Raises:
        InputError: if cut-offs and scales do not fit, or as `contrast`.

    NFE: +1 inside the window.
    Source: Zhang et al. 2025, FreCaS, arXiv:2410.18410; read against xtudbxk/FreCaS
        (low 7.5, high 25 to 45). The bands by Fourier transform are those of ComfyUI's
        FreSca node.
    Differs from the source: FreCaS takes as low band what survives resizing to the size
        of its stage before, which is near `cutoffs=(0.25,)` for a factor of 2; the
        cascade of sizes is not offered. FreSca's band is a square, not a disc.
    """
    scales = _scales("frequency_cfg", scales)
    _check_cutoffs("frequency_cfg", cutoffs, len(scales))
    return _banded(
        "frequency_cfg", scales, NATIVE, (t_lo, t_hi),
        lambda one_hot: frequency(one_hot, cutoffs, axes=axes),
    )  # fmt: skip


def _banded(
    name: str,
    scales: tuple[Weight, ...],
    space: str,
    window: tuple[float, float],
    band: Callable[[tuple[float | None, ...]], DirectionMap],
) -> Chain:
    """CFG of each band alone, so that each has a scale and is left out where off."""
    check_named_space(name, space)
    parts = []
    for index, scale in enumerate(scales):
        # A contrast per band: all read the same two branches, so this costs no
        # evaluation, and each is off where its own scale is 1.
        one_hot = tuple(1.0 if i == index else None for i in range(len(scales)))
        parts.append(
            contrast(
                scale, NULL, neutral=1.0, t_lo=window[0], t_hi=window[1], space=space,
                name=name, maps=(band(one_hot),),
            )
        )  # fmt: skip
    return chain(*parts)


def _scales(name: str, scales: Any) -> tuple[Weight, ...]:
    """The scales, at least one."""
    several = isinstance(scales, tuple | list) or getattr(scales, "ndim", 0) > 0
    if not several or not (scales := tuple(scales)):
        raise InputError(
            f"{name}: need at least one scale, got scales={scales!r}. Give a tuple: "
            f"{name}((10.0, 5.0))."
        )
    return scales


def spatial_axes(x: Array, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The given axes, or all but batch and channels; the only one of [B, n]."""
    if axes is None and x.ndim > 2:
        return tuple(range(1, x.ndim - 1))
    return sample_axes(x, axes)


def _radius(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Frequency of every place of the spectrum, in cycles per pixel, [1 or side, ...]
    over the axes of one sample."""
    square = np.zeros((1,) * len(shape))
    for axis in axes:
        side = [1] * len(shape)
        side[axis] = -1
        square = square + np.fft.fftfreq(shape[axis]).reshape(side) ** 2
    return np.sqrt(square)[0]


def _weights(name: str, weights: Any) -> tuple[Schedule | None, ...]:
    """Schedules, or None for a band that is left out."""
    weights = tuple(weights)
    if not weights:
        raise InputError(f"{name}: need at least one weight, got weights=().")
    for weight in weights:
        if weight is not None:
            check_number(name, "weights", weight)
    return tuple(None if one is None else schedules.constant(one) for one in weights)


def _check_cutoffs(name: str, cutoffs: Any, number: int) -> None:
    try:
        edges = np.asarray(cutoffs, float)
    except (TypeError, ValueError):
        edges = np.full(1, np.nan)
    fall = edges.ndim == 1 and np.all(np.diff(edges) < 0) and np.all(edges > 0)
    if edges.shape != (number - 1,) or not fall or not np.all(np.isfinite(edges)):
        raise InputError(
            f"{name}: need {number - 1} falling cut-offs above 0, one fewer than "
            f"bands, got cutoffs={cutoffs!r}."
        )
