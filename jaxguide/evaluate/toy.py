"""Measures of points whose distribution is known: no network stands in between.

A known distribution says of each point whether it belongs to it, and to which of its
cells: the components of a Gaussian mixture (`oracle`), the squares of a board. From
this come the rate of outliers and the coverage of modes; distances of two sets of
points are `energy_distance` and `sliced_wasserstein`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Protocol

import numpy as np

from jaxguide.evaluate.distances import (
    energy_distance as energy_distance,
    sliced_wasserstein as sliced_wasserstein,
)
from jaxguide.oracle import GaussianMixture


class Known(Protocol):
    """A distribution that knows where points belong."""

    def place(self, points: np.ndarray, label: np.ndarray) -> Places:
        """Where points [N, *D] of the given classes [N] lie."""
        ...


class Places(NamedTuple):
    """Where points lie.

    Args:
        inside: bool [N], whether the point belongs to the distribution of its class.
        cell: int [N], which part of it.
        cells: how many parts the classes of these points have.
    """

    inside: np.ndarray
    cell: np.ndarray
    cells: int


def outlier_rate(places: Places) -> float:
    """Share of points that belong to no part of their class."""
    return float(1 - np.mean(places.inside))


def mode_coverage(places: Places, *, least: int = 1) -> float:
    """Share of the parts that hold `least` points or more; outliers do not count."""
    counts = np.bincount(places.cell[places.inside], minlength=1)
    return float((counts >= least).sum() / places.cells)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A Gaussian mixture; its parts are its components.

    A point belongs to the component to which it is nearest in standard deviations,
    and is an outlier if that is farther than `reach` deviations of that distance say.

    Args:
        mixture: of components N(mean_k, std_k^2 I), each of one class; the null label
            stands for all classes.
        reach: standard deviations of a normal variable. 4 holds all but 3e-5 of the
            real points.
    """

    mixture: GaussianMixture
    reach: float = 4.0

    @property
    def radius(self) -> float:
        """Distance in standard deviations of a component that is still inside.

        Source: Wilson & Hilferty 1931, the distribution of chi-square.
        """
        size = int(np.prod(np.shape(self.mixture.means)[1:]))
        part = 2 / (9 * size)
        return math.sqrt(size * (1 - part + self.reach * math.sqrt(part)) ** 3)

    def place(self, points: np.ndarray, label: np.ndarray) -> Places:
        """See `Known.place`."""
        label = np.asarray(label)
        means = np.asarray(self.mixture.means, np.float64)
        means = means.reshape(len(means), -1)
        flat = np.asarray(points, np.float64).reshape(len(points), -1)
        gaps = np.linalg.norm(flat[:, None] - means[None], axis=2)
        gaps = gaps / np.asarray(self.mixture.stds, np.float64)
        own = label[:, None] == np.array(self.mixture.labels)
        own |= (label == self.mixture.num_classes)[:, None]
        gaps = np.where(own, gaps, np.inf)
        cell = gaps.argmin(axis=1)
        inside = gaps.min(axis=1) <= self.radius
        return Places(inside, cell, int(own.any(axis=0).sum()))


@dataclasses.dataclass(frozen=True)
class Board:
    """Squares of a checkerboard in the plane, one colour per class, gaps between them.

    Args:
        side: squares along an edge; the middle of the board is the origin.
        edge: of a square, where the distance from one to the next is 1.
        pieces: parts along the edge of a square.
        margin: how far outside a point is still inside.
    """

    side: int = 4
    edge: float = 0.7
    pieces: int = 4
    margin: float = 0.05

    def sample(self, rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
        """Points [N, 2] of the classes [N], 0 or 1, even over their squares."""
        row = rng.integers(0, self.side, len(label))
        column = 2 * rng.integers(0, self.side // 2, len(label)) + (row + label) % 2
        corner = np.stack([column, row], axis=1) - (self.side - 1) / 2
        return corner + self.edge * (rng.random((len(label), 2)) - 0.5)

    def place(self, points: np.ndarray, label: np.ndarray) -> Places:
        """See `Known.place`; the parts of both classes are counted."""
        at = points + (self.side - 1) / 2
        square = np.clip(np.round(at), 0, self.side - 1).astype(int)
        inside = np.abs(at - square).max(1) <= self.edge / 2 + self.margin
        inside &= square.sum(1) % 2 == label
        piece = np.floor(((at - square) / self.edge + 0.5) * self.pieces)
        piece = np.clip(piece, 0, self.pieces - 1).astype(int)
        row, column = (square * self.pieces + piece).T
        across = self.side * self.pieces
        return Places(inside, row * across + column, across**2)
