"""Guidance away from the network on a poorer input: a blurred image, or crops of it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._base import RAW, Branch, Change, View
from jaxguide.guidance._blur import blur
from jaxguide.guidance._checks import is_whole, static_number
from jaxguide.guidance._contrast import Contrast, DirectionMap, Sides, Weight, contrast
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import check_named_space, pytree
from jaxguide.paths import Array

BLURRED = ("denoised", "state")
SIZE, CROPS = 0.625, 2  # of the paper: 40 of 64 pixels, two crops along an edge


@dataclasses.dataclass(frozen=True)
class BlurredInput(Change):
    """The input with the noisy state, or the clean image it promises, blurred."""

    sigma: float
    what: str

    second = True

    def x(self, here: View) -> Array:
        """The new input [B, H, W, C]."""
        step = here.step
        if self.what == "state":
            return blur(step.x, self.sigma, (1, 2))
        kind, node = here.network.kind, step.node
        denoised, noise = paths.to_pair(kind, here[RAW], step.x, node)
        clean = blur(denoised, self.sigma, (1, 2))
        alpha, sigma = (paths.expand(one, clean) for one in (node.alpha, node.sigma))
        return (alpha * clean + sigma * noise).astype(step.x.dtype)


def blurred_input(
    weight: Weight,
    *,
    sigma: float = 1.0,
    what: str = "denoised",
    space: str = "noise",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Blur guidance: away from the network on an input without fine detail.

        guided + weight(t) * (raw - D(alpha blur(x0) + sigma noise))

    x0 and noise are what the raw prediction says of x; the whole image is blurred, by a
    Gaussian along both axes. Not invariant to the prediction space, see `space`.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        sigma: of the Gaussian, in pixels of x [B, H, W, C], > 0; inf is the mean.
        what: "denoised" as above, or "state" to blur x itself with its noise.
        space: where the difference is taken; each prediction is converted at its own
            input. "noise" as in the source.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs samples [B, H, W, ...].

    Raises:
        InputError: if `sigma` is not positive, `what` or `space` unknown, or as
            `contrast`.

    NFE: +1 inside the window, in a second round.
    Source: Hong et al. 2022, arXiv:2210.00939, Sec. 4.1: blur guidance, from which
        self-attention guidance (`sag`) follows by blurring only where attention looks.
    Differs from the source: its scale is 1 + weight. The kernel has ceil(6 sigma) taps
        (made odd), where SAG's code has 9 at sigma 1. "state" is not in the source.
    """
    sigma = static_number("blurred_input", "sigma", sigma, above=0, infinite=True)
    if what not in BLURRED:
        raise InputError(f"blurred_input: need what in {BLURRED}, got what={what!r}.")
    check_named_space("blurred_input", space)
    away = Branch(change=BlurredInput(sigma, what))
    return contrast(
        weight, away, t_lo=t_lo, t_hi=t_hi, space=space, name="blurred_input"
    )


def starts(edge: int, size: float, crops: int, unit: int = 1) -> tuple[int, list[int]]:
    """(length of a crop, where the crops start) along an edge, in whole `unit`s."""
    cells = edge // unit
    length = min(max(1, round(size * cells)), cells)
    places = np.rint(np.linspace(0, cells - length, crops)).astype(int)
    return length * unit, [int(place) * unit for place in places]


def _boxes(
    shape: tuple[int, ...], crop: "Crops", tokens: tuple[int, int] | None
) -> list[Any]:
    """The index of every crop into [B, H, W, ...]; crops hold whole tokens."""
    # A crop that cut through a token would shift the network's patches.
    units = [1, 1]
    if tokens is not None:
        units = [n // m for n, m in zip(shape[1:3], tokens, strict=True)]
    axes = [
        starts(edge, crop.size, crop.count, max(unit, 1))
        for edge, unit in zip(shape[1:3], units, strict=True)
    ]
    (height, tops), (width, lefts) = axes
    return [
        (slice(None), slice(top, top + height), slice(left, left + width))
        for top in tops
        for left in lefts
    ]


def _coverage(shape: tuple[int, ...], boxes: list[Any]) -> np.ndarray:
    """How many crops hold each place: [1, H, W, 1, ...]."""
    counts = np.zeros((1, *shape[1:3], *(1,) * (len(shape) - 3)))
    for box in boxes:
        counts[box] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class Crops(Change):
    """Runs the network on overlapping crops, one by one, and averages where they meet.

    `size` is a crop's edge relative to the image's, `count` their number along an edge.
    All crops are one call on a larger batch of smaller images.
    """

    size: float = SIZE
    count: int = CROPS

    name = "sliding_window"

    def around(self, network: Network) -> Network:
        """The network that sees the crops; it counts each as an evaluation."""
        return crops(network, size=self.size, count=self.count)


@dataclasses.dataclass(frozen=True)
class _Cropped:
    """A prediction made of those of the crops; hashable."""

    crop: Crops
    tokens: tuple[int, int] | None

    def __call__(
        self, predict: Any, x: Array, t: Array, cond: Any, **taps: Any
    ) -> Array:
        boxes = _boxes(x.shape, self.crop, self.tokens)
        many = len(boxes)
        cut = jnp.concatenate([x[box] for box in boxes])
        # All crops in one call, crop by crop: row i len(x) + b is crop i of sample b.
        repeat = lambda leaf: jnp.concatenate([leaf] * many)  # noqa: E731
        times = repeat(t) if jnp.ndim(t) else t
        out = predict(cut, times, jax.tree.map(repeat, cond), **taps)
        out = out[0] if isinstance(out, tuple) else out
        total = jnp.zeros(x.shape, out.dtype)
        for i, box in enumerate(boxes):
            total = total.at[box].add(out[i * len(x) : (i + 1) * len(x)])
        # Places that no crop holds (crops smaller than their distance) stay 0.
        counts = np.maximum(_coverage(x.shape, boxes), 1)
        return total / jnp.asarray(counts, out.dtype)


def crops(network: Network, *, size: float = SIZE, count: int = CROPS) -> Network:
    """A network that sees crops of its input one by one, averaged where they overlap.

    Args:
        network: one that takes images [B, h, w, ...] of any size. A transformer with
            fixed positions must make those of a crop itself: of a smaller image, or by
            interpolating its table, as the source does. Where `network.tokens` is
            known, crops begin and end between tokens.
        size: edge of a crop, relative to the image's.
        count: number of crops along each edge, equally spaced; `count**2` in all.

    Returns:
        A `Network` whose one prediction counts as `count**2` evaluations. Its FLOPs
        are those of the pixels of all crops: an upper bound where attention is dense.
    """
    share = size**2 * count**2
    function = _Cropped(Crops(size, count), network.tokens)
    return dataclasses.replace(
        network,
        predict=jax.tree_util.Partial(function, network.predict),
        flops=None if network.flops is None else network.flops * share,
        block_flops=network.block_flops * share,
        calls=network.calls * count**2,
    )


@pytree()
class Overlap(DirectionMap):
    """Nothing where fewer than two crops lie."""

    crop: Crops

    def map(self, difference: Array, sides: Sides) -> Array:
        """Masks the difference."""
        tokens = sides.here.network.tokens
        boxes = _boxes(difference.shape, self.crop, tokens)
        mask = _coverage(difference.shape, boxes) > 1
        return difference * jnp.asarray(mask, difference.dtype)


def sliding_window(
    weight: Weight,
    *,
    size: float = SIZE,
    crops: int = CROPS,
    masked: bool = True,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """(Masked) sliding window guidance, SWG: away from the network on crops of x.

        guided + weight(t) * mask * (raw - mean of the crops' predictions)

    Each crop is predicted on its own, so that the away side knows nothing of what lies
    far off; `mask` is 1 where at least two crops lie (M-SWG), or everywhere.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        size: edge of a crop, relative to the image's, in (0, 1].
        crops: number of crops along each edge, at least 1; `crops**2` in all.
        masked: whether the term is left out where crops do not overlap.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs samples [B, H, W, ...] and a network that
        takes images of any size, see `crops`.

    Raises:
        InputError: if `size` or `crops` is out of range, the crops of the masked form
            cannot overlap, or as `contrast`.

    NFE: +crops**2 inside the window, each on a crop: size**2 of the pixels.
    Source: Adaloglou et al. 2024, arXiv:2411.10257 (v3), Sec. 4, read against
        HHU-MMBS/swg_bmvc2025_official @2ab1a60, edm2/diffusion/models.py (weights 0.2
        to 1.5; four crops of 40 in 64 or 20 in 32).
    Differs from the source: crops are spread evenly also where the image is no
        multiple of their distance (there the official code divides by zero). The
        official combination with CFG has no mask in its EDM2 script.
    """
    size = static_number("sliding_window", "size", size)
    if not 0 < size <= 1 or not is_whole(crops) or crops < 1:
        raise InputError(
            "sliding_window: need 0 < size <= 1 and an integer crops >= 1, got "
            f"size={size!r}, crops={crops!r}."
        )
    if masked and size * crops <= 1:
        raise InputError(
            "sliding_window: need crops that overlap, size * crops > 1, got "
            f"size={size!r}, crops={crops!r}. Take larger ones, or masked=False."
        )
    crop = Crops(float(size), crops)
    maps = (Overlap(crop),) if masked else ()
    return contrast(
        weight, Branch(change=crop), t_lo=t_lo, t_hi=t_hi, name="sliding_window",
        maps=maps,
    )  # fmt: skip
