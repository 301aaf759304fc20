"""Distance of two Gaussians: FID with Inception's features, "FD-..." with others.

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr (A B)^(1/2)

With A = R R^T and B = S S^T the last trace is the sum of the singular values of R^T S.
That needs no square root of a matrix that is not symmetric, keeps the full precision
where eigenvalues are tiny, and holds for singular covariances, as those of fewer images
than features are.

Sources: Heusel et al. 2017, arXiv:1706.08500, Eq. 6; Dowson & Landau 1982 for the
    distance.
Differs from the sources: theirs add 1e-6 to the diagonals where scipy's `sqrtm` fails
    (ADM, pytorch-fid) or sum the square roots of the eigenvalues of A B
    (torch-fidelity); where those are exact, the numbers agree to 1e-6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.evaluate.statistics import Moments

# Of the largest number of a covariance: what is lost where one was kept in float32.
ROUNDING = 1e-5


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D], float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, moments: Moments) -> Gaussian:
        """With the covariance that divides by count - 1."""
        return cls(moments.mean, moments.covariance())


def check(gaussian: Gaussian) -> None:
    """Raises InputError unless these are a finite mean and a symmetric covariance."""
    mean, covariance = gaussian
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise NonFiniteError(
            "frechet_distance: need a finite mean and covariance, got NaN or infinity. "
            "Compute the statistics again."
        )
    apart = np.abs(covariance - covariance.T).max(initial=0)
    if apart > ROUNDING * np.abs(covariance).max(initial=0):
        raise InputError(
            "frechet_distance: need a symmetric covariance, got one that differs from "
            f"its transpose by {apart:.3g}. Compute the statistics again."
        )


def factor(covariance: np.ndarray) -> np.ndarray:
    """R [D, rank] with R R^T = covariance; rounding errors are no directions.

    Args:
        covariance: symmetric [D, D] without negative eigenvalues but for rounding.

    Raises:
        InputError: if it has one below -`ROUNDING` times the largest.
    """
    # Below this an eigenvalue is rounding error, and its root would not be small.
    values, vectors = np.linalg.eigh(covariance)
    largest = np.abs(values).max(initial=0)
    if values[0] < -ROUNDING * largest:
        raise InputError(
            "frechet_distance: need a covariance, whose eigenvalues are >= 0, got one "
            f"with {values[0]:.3g} beside {values[-1]:.3g}. Compute the statistics "
            "again."
        )
    kept = values > np.finfo(np.float64).eps * len(values) * largest
    return vectors[:, kept] * np.sqrt(values[kept])


def frechet_distance(
    a: Gaussian, b: Gaussian, *, factor_b: np.ndarray | None = None
) -> float:
    """The squared Frechet (2-Wasserstein) distance of two Gaussians, as FID reports it.

    Args:
        a, b: mean and covariance of the features of two sets of images.
        factor_b: `factor(b.covariance)`, if already computed: half the time.

    Returns:
        A number >= 0 but for rounding, in squared units of the features.

    Raises:
        InputError: if the sizes differ, or a covariance is none.
        NonFiniteError: if a number is NaN or infinite.

    Source: Heusel et al. 2017, arXiv:1706.08500, Eq. 6.

    >>> import numpy as np
    >>> narrow = Gaussian(np.zeros(2), np.eye(2))
    >>> wide = Gaussian(np.ones(2), 4 * np.eye(2))
    >>> round(frechet_distance(narrow, wide), 9)
    4.0
    """
    if a.mean.shape != b.mean.shape or a.covariance.shape != b.covariance.shape:
        raise InputError(
            "frechet_distance: need features of one size, got "
            f"a={a.mean.shape!r}, b={b.mean.shape!r}. Use one network for both."
        )
    check(a)
    check(b)
    factor_b = factor(b.covariance) if factor_b is None else factor_b
    overlap = np.linalg.svd(factor(a.covariance).T @ factor_b, compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(apart + traces - 2 * overlap)
