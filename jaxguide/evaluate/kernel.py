"""Kernel distance (squared MMD): KID with Inception's features, "KD-..." with others.

    E k(x, x') + E k(y, y') - 2 E k(x, y)        k(x, y) = (x · y / D + 1)^3

over pairs of different images. The estimate is unbiased: 0 on average for two sets from
one source, whatever their sizes, so it suits small sets where the Fréchet distance
does not.

Source: Binkowski et al. 2018, arXiv:1801.01401, Sec. 4 and Eq. 4; Gretton et al. 2012
    for the estimate.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from jaxguide.errors import InputError

BLOCKS = 20  # for the jackknife
_ROWS, _COLUMNS = 256, 4096  # at once: the kernel of all pairs is never held


class Estimate(NamedTuple):
    """A value and how far it may be off: one standard error or deviation."""

    value: float
    spread: float


def kernel_sums(
    x: np.ndarray, y: np.ndarray, bounds_x: list[int], bounds_y: list[int]
) -> np.ndarray:
    """Sums of k over all pairs, block by block; float64.

    Args:
        x, y: [N, D] and [M, D].
        bounds_x, bounds_y: where blocks of rows begin and end, [B + 1] and [C + 1].

    Returns:
        [B, C].
    """
    sums = np.zeros((len(bounds_x) - 1, len(y)))
    for left in range(0, len(y), _COLUMNS):
        columns = np.asarray(y[left : left + _COLUMNS], np.float64)
        for row, (start, stop) in enumerate(itertools.pairwise(bounds_x)):
            for first in range(start, stop, _ROWS):
                rows = np.asarray(x[first : min(first + _ROWS, stop)], np.float64)
                values = _kernel(rows, columns).sum(axis=0)
                sums[row, left : left + _COLUMNS] += values
    return np.add.reduceat(sums, bounds_y[:-1], axis=1)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # In place: a block has a million entries, and is made thousands of times.
    gram = x @ y.T
    gram /= x.shape[1]
    gram += 1
    return gram * gram * gram


def _diagonal(x: np.ndarray, bounds: list[int]) -> np.ndarray:
    """Sums of k(x, x) of every block, [B]."""
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return np.add.reduceat((squares / x.shape[1] + 1) ** 3, bounds[:-1])


class Within(NamedTuple):
    """The kernels inside one set, summed by blocks.

    Args:
        sums: over all pairs of two blocks [B, B].
        own: over the pairs of an image with itself, by block [B].
        sizes: images in a block [B].
    """

    sums: np.ndarray
    own: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, blocks: int = BLOCKS) -> Within:
        """Of features [N, D]."""
        cut = _cuts(x, blocks)
        return cls(kernel_sums(x, x, cut, cut), _diagonal(x, cut), np.diff(cut))

    def mean(self, kept: np.ndarray) -> float:
        """Over pairs of different images in the blocks that are kept, bool [B]."""
        count = self.sizes[kept].sum()
        total = self.sums[np.ix_(kept, kept)].sum() - self.own[kept].sum()
        return float(total / (count * (count - 1)))


def _cuts(x: np.ndarray, blocks: int) -> list[int]:
    """Bounds of equal blocks of rows."""
    return [block * len(x) // blocks for block in range(blocks + 1)]


def kernel_distance(
    x: np.ndarray,
    y: np.ndarray,
    *,
    blocks: int = BLOCKS,
    within_y: Within | None = None,
) -> Estimate:
    """The unbiased estimate from all pairs, and its standard error.

    The error is the jackknife's: the estimate is made again without each of the
    blocks, of both sets at once, from the same sums of kernels.

    Args:
        x, y: features [N, D] and [M, D] of two sets, in random order.
        blocks: 2 or more, each of 2 images or more.
        within_y: `Within.of(y, blocks)`, if already computed.

    Returns:
        The estimate, slightly below 0 at times, and its standard error.

    Raises:
        InputError: if there are too few images for the blocks.

    Source: Binkowski et al. 2018, arXiv:1801.01401, Eq. 4; Efron & Stein 1981 for the
        jackknife.
    Differs from the source: all pairs at once, where KID averages over subsets.
    """
    _check("kernel_distance", x, y, 2 * blocks)
    within_x = Within.of(x, blocks)
    within_y = within_y or Within.of(y, blocks)
    between = kernel_sums(x, y, _cuts(x, blocks), _cuts(y, blocks))

    def estimate(kept: np.ndarray) -> float:
        """From the blocks that are kept, bool [B]."""
        pairs = within_x.sizes[kept].sum() * within_y.sizes[kept].sum()
        across = between[np.ix_(kept, kept)].sum() / pairs
        return float(within_x.mean(kept) + within_y.mean(kept) - 2 * across)

    # Sums of blocks are kept, so leaving one out is a sum over the others and computes
    # no kernel again.
    every = np.arange(blocks)
    left_out = [estimate(every != block) for block in every]
    return Estimate(estimate(every >= 0), jackknife_error(left_out))


def jackknife_error(left_out: list[float]) -> float:
    """Standard error, from the values without each block."""
    return float(np.sqrt(len(left_out) - 1) * np.std(left_out))


def subset_kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int, size: int, seed: int
) -> Estimate:
    """KID as torch-fidelity reports it: mean and deviation over random subsets.

    Args:
        x, y: features [N, D] of the images and [M, D] of the reference.
        subsets: how many subsets of each are drawn.
        size: images in each, at most N and M.
        seed: of NumPy's RandomState.

    Returns:
        Mean and standard deviation over the subsets; the deviation is that of one
        subset, and no error of the mean.

    Raises:
        InputError: if a set has fewer than `size` images.

    Source: torch-fidelity 0.4.0, metric_kid.py, with its draws.
    Differs from the source: float64 throughout, where it computes in float32.
    """
    _check("subset_kernel_distance", x, y, size)
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        a, b = (
            np.asarray(s[rng.choice(len(s), size, replace=False)], np.float64)
            for s in (x, y)
        )
        within = sum(_kernel(s, s).sum() - _diagonal(s, [0, size])[0] for s in (a, b))
        distances.append(within / (size * (size - 1)) - 2 * _kernel(a, b).mean())
    return Estimate(float(np.mean(distances)), float(np.std(distances)))


def _check(name: str, x: np.ndarray, y: np.ndarray, least: int) -> None:
    if min(len(x), len(y)) < least or x.shape[1] != y.shape[1]:
        raise InputError(
            f"{name}: need {least} images or more in both sets and features of one "
            f"size, got x={x.shape!r}, y={y.shape!r}. Use more images."
        )
