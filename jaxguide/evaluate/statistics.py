"""Mean and covariance of features that come in batches, in float64.

Of n vectors x_i are kept, and enough to go on or to merge with others,

    mean    = sum_i x_i / n
    scatter = sum_i (x_i - mean) (x_i - mean)^T

Two sets a and b together, with d = mean_b - mean_a and n = n_a + n_b, have

    mean    = mean_a + d n_b / n
    scatter = scatter_a + scatter_b + d d^T n_a n_b / n

so that no large sums of squares are ever subtracted from each other.

Source: Chan, Golub & LeVeque 1983, Algorithms for computing the sample variance, Am.
    Stat. 37, Eq. 2.1, for vectors.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxguide.errors import InputError
from jaxguide.runtime.npz import Npz, read_npz
from jaxguide.runtime.shards import write_whole


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of vectors.

    Args:
        count: number of vectors n.
        mean: float64 [D].
        scatter: float64 [D, D], summed outer products of what is left of the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Moments:
        """Of no vectors of `size` numbers."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Of all rows of [N, D], N >= 1, in one go."""
        # float64: FID takes differences of traces far larger than itself.
        rows = np.asarray(features, np.float64)
        mean = rows.mean(axis=0)
        rows = rows - mean
        return cls(len(rows), mean, rows.T @ rows)

    def add(self, features: np.ndarray) -> Moments:
        """These and the rows of [N, D]; the argument may be of any float type."""
        return merge(self, Moments.of(features)) if len(features) else self

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """Covariance [D, D]; divides by count - `ddof`.

        Raises:
            InputError: if there are too few vectors.
        """
        if self.count <= ddof:
            raise InputError(
                f"covariance: need more than {ddof} vectors, got count={self.count}. "
                "Add more images."
            )
        return self.scatter / (self.count - ddof)

    def save(self, path: str | Path) -> None:
        """Writes an `.npz` that is there as a whole or not at all."""
        fields = dataclasses.asdict(self)

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **fields)

        write_whole(Path(path), write)

    @classmethod
    def load(cls, path: str | Path, *, count: int) -> Moments:
        """Reads what `save` wrote.

        Raises:
            InputError: if the file is damaged, or not of `count` vectors.
        """
        file = Npz(path, "moments")
        fields = read_npz(path, ("count", "mean", "scatter"), "moments")
        mean, scatter = fields["mean"], fields["scatter"]
        if (
            fields["count"].shape != ()
            or fields["count"] != count
            or mean.ndim != 1
            or scatter.shape != 2 * mean.shape
        ):
            raise file.refused(f"moments of {count} vectors", repr(scatter.shape))
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise file.refused("finite moments", "NaN or infinity")
        return cls(count, mean, scatter)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two sets together.

    >>> import numpy as np
    >>> x = np.arange(12.0).reshape(6, 2) ** 2
    >>> both = merge(Moments.of(x[:2]), Moments.of(x[2:]))
    >>> bool(np.allclose(both.covariance(), np.cov(x, rowvar=False)))
    True
    """
    count = a.count + b.count
    if not count:
        return a
    apart = b.mean - a.mean
    scatter = a.scatter + b.scatter
    scatter += np.outer(apart, apart) * (a.count * b.count / count)
    return Moments(count, a.mean + apart * (b.count / count), scatter)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Moments of several sets together, merged from left to right."""
    # In a fixed order, since rounding depends on it: a run that was stopped and goes on
    # gives the same bits.
    return functools.reduce(merge, parts)


def without(whole: Moments, part: Moments) -> Moments:
    """Moments of what is left when `part` is taken out of `whole`, of which it is."""
    count = whole.count - part.count
    apart = part.mean - whole.mean
    mean = whole.mean - apart * (part.count / count)
    apart = part.mean - mean
    scatter = whole.scatter - part.scatter
    scatter -= np.outer(apart, apart) * (part.count * count / whole.count)
    return Moments(count, mean, scatter)
