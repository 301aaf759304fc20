"""Distances of two sets of points that need no network and no images."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxguide.errors import InputError


def energy_distance(samples: Any, reals: Any) -> float:
    """How far two sets of points are apart; 0 on average if they are from one source.

        2 E|x - y| - E|x - x'| - E|y - y'|     over pairs of different points

    Args:
        samples, reals: [N, *D] and [M, *D], at least two each; pixels or features.

    Returns:
        The unbiased estimate, which may be slightly below 0.

    Raises:
        InputError: if a set has fewer than two points.

    Source: Szekely & Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143.
    """
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (samples, reals))
    if min(len(x), len(y)) < 2:
        raise InputError(
            "energy_distance: need two points or more in each set, got "
            f"samples={len(x)!r} and reals={len(y)!r} points."
        )
    within = _total(x, x) / (len(x) * (len(x) - 1))
    within += _total(y, y) / (len(y) * (len(y) - 1))
    return float(2 * _total(x, y) / (len(x) * len(y)) - within)


def _total(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of all distances between points of two sets."""
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * x @ y.T
    distances = np.sqrt(np.maximum(squares, 0.0))
    if x is y:
        np.fill_diagonal(distances, 0.0)
    return float(distances.sum())


def sliced_wasserstein(
    samples: Any, reals: Any, *, projections: int = 256, seed: int = 0
) -> float:
    """Root of the mean squared distance of sorted points, over random directions.

        sqrt E_u integral_0^1 (F_{u.x}^-1(q) - F_{u.y}^-1(q))^2 dq,   |u| = 1

    Args:
        samples, reals: [N, *D] and [M, *D]; of unequal numbers, the quantiles of both
            are compared at the steps of either.
        projections: number of directions u.
        seed: of the directions.

    Returns:
        A number >= 0 in units of the points. Two sets from one source are not at 0:
        compare with what real points reach.

    Raises:
        InputError: if a set is empty.

    Source: Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters, Sec. 3.
    """
    shapes = np.shape(samples), np.shape(reals)
    if not min(shapes[0][0], shapes[1][0]) or shapes[0][1:] != shapes[1][1:]:
        raise InputError(
            "sliced_wasserstein: need points of one size in each set, got "
            f"samples={list(shapes[0])!r} and reals={list(shapes[1])!r}."
        )
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (samples, reals))
    ways = np.random.default_rng(seed).normal(size=(x.shape[1], projections))
    ways /= np.linalg.norm(ways, axis=0)
    sorted_x, sorted_y = (np.sort(a @ ways, axis=0) for a in (x, y))
    ends = [np.arange(1, len(a) + 1) / len(a) for a in (x, y)]
    steps = np.union1d(*ends)
    # Between two steps both quantile functions are constant; a sum of floats may pass
    # the end of a step by rounding only.
    at = [np.searchsorted(end, steps - 1e-12) for end in ends]
    gaps = np.square(sorted_x[at[0]] - sorted_y[at[1]]).mean(axis=1)
    return float(np.sqrt((gaps * np.diff(steps, prepend=0)).sum()))
