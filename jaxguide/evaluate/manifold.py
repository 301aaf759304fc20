"""Precision, recall, density and coverage: balls around images stand for what is real.

The ball of an image reaches to its k-th nearest neighbour in its own set.

    precision   share of samples inside the ball of any real image
    recall      share of real images inside the ball of any sample
    density     balls of real images around a sample, on average, divided by k
    coverage    share of real images whose ball holds a sample

All distances are computed block by block on the device; no matrix of all pairs exists.

Sources: Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 1 and 2 (precision, recall);
    Naeem et al. 2020, arXiv:2002.09797, Eq. 4 to 6 (density, coverage).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxguide.errors import InputError

Distance = Callable[[Array, Array], Array]  # [n, D], [m, D] -> squared, float32 [n, m]


class Share(NamedTuple):
    """A mean over images and its standard error, the other set taken as given."""

    value: float
    error: float

    @classmethod
    def of(cls, numbers: np.ndarray) -> Share:
        """Mean of one number per image."""
        error = np.std(numbers, dtype=np.float64) / math.sqrt(len(numbers))
        return cls(float(np.mean(numbers, dtype=np.float64)), float(error))


def squared(u: Array, v: Array) -> Array:
    """Squared distances [n, m] of rows [n, D] and [m, D], float32."""
    # The three terms nearly cancel for close points: hence full precision in the
    # product, and no negative distances.
    product = jnp.matmul(u, v.T, precision=lax.Precision.HIGHEST)
    norms = [jnp.square(a).sum(axis=1) for a in (u, v)]
    return jnp.maximum(norms[0][:, None] - 2 * product + norms[1][None], 0)


def squared_half(u: Array, v: Array) -> Array:
    """Squared distances in float16 if all of them are finite, else in float32.

    Every product and sum is rounded to float16, sums over features at their end. At
    usual distances of Inception's features, float16 has steps of 0.25.

    Source: openai/guided-diffusion, evaluations/evaluator.py, DistanceBlock.
    Differs from the source: how a GPU rounds inside its sums is not pinned there.
    """
    halves = [a.astype(jnp.float16) for a in (u, v)]
    wide = [half.astype(jnp.float32) for half in halves]
    product = jnp.matmul(wide[0], wide[1].T, precision=lax.Precision.HIGHEST)
    product = product.astype(jnp.float16)
    squares = [jnp.square(half).astype(jnp.float32) for half in halves]
    norms = [square.sum(axis=1).astype(jnp.float16) for square in squares]
    two = jnp.float16(2)
    half = norms[0][:, None] - two * product + norms[1][None]
    half = jnp.maximum(half, jnp.float16(0))
    return lax.cond(
        jnp.isfinite(half).all(),
        lambda: half.astype(jnp.float32),
        lambda: squared(u, v),
    )


class Balls(NamedTuple):
    """How distances are computed, and how many at once.

    Args:
        distance: `squared` or `squared_half`.
        block: rows of both sets in one call, each; it matters to `squared_half`, which
            decides for a whole block.
    """

    distance: Distance = squared
    block: int = 2048

    def radii(self, x: np.ndarray, k: int) -> np.ndarray:
        """Squared distance of each row of [N, D] to its k-th neighbour, [N].

        Raises:
            InputError: if there are no k others.
        """
        if not 1 <= k < len(x):
            raise InputError(
                f"radii: need 1 <= k < images, got k={k!r}, images={len(x)}. "
                "Use more images."
            )
        parts = []
        for rows in self._blocks(x):
            nearest = np.empty((len(rows), 0), np.float32)
            for columns in self._blocks(x):
                # A row is its own nearest neighbour, so k + 1 are kept.
                kept = min(k + 1, len(columns))
                closest = _closest(self.distance, rows, columns, kept)
                nearest = np.concatenate([nearest, np.asarray(closest)], axis=1)
                nearest = np.sort(nearest, axis=1)[:, : k + 1]
            parts.append(nearest[:, k])
        return np.concatenate(parts)

    def around(
        self, x: np.ndarray, centres: np.ndarray, radii: np.ndarray, *, edge: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """How many balls hold each point, and how many points each ball holds.

        Args:
            x: points [N, D].
            centres, radii: of the balls [M, D], and squared [M].
            edge: whether a ball holds its edge.

        Returns:
            int64 [N] and [M].
        """
        holding = np.zeros(len(x), np.int64)
        held = np.zeros(len(centres), np.int64)
        for start, points in self._numbered(x):
            for first, block in self._numbered(centres):
                reach = radii[first : first + len(block)]
                inside = _inside(self.distance, edge, points, block, reach)
                holding[start : start + len(points)] += np.asarray(inside[0])
                held[first : first + len(block)] += np.asarray(inside[1])
        return holding, held

    def _blocks(self, x: np.ndarray) -> Iterator[np.ndarray]:
        return (block for _, block in self._numbered(x))

    def _numbered(self, x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(x), self.block):
            yield start, np.asarray(x[start : start + self.block], np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _closest(distance: Distance, rows: Array, columns: Array, count: int) -> Array:
    """The smallest squared distances of every row, [n, count]."""
    return -lax.top_k(-distance(rows, columns), count)[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _inside(
    distance: Distance, edge: bool, points: Array, centres: Array, radii: Array
) -> tuple[Array, Array]:
    """Balls around each point [n], and points in each ball [m]."""
    distances = distance(points, centres)
    inside = distances <= radii[None] if edge else distances < radii[None]
    return inside.sum(axis=1), inside.sum(axis=0)


def precision_recall(
    samples: np.ndarray,
    reals: np.ndarray,
    *,
    k: int = 3,
    balls: Balls | None = None,
    radii: np.ndarray | None = None,
) -> tuple[Share, Share]:
    """Improved precision and recall.

    Args:
        samples, reals: features [N, D] and [M, D].
        k: neighbours that a ball reaches to.
        balls: how distances are computed.
        radii: `balls.radii(reals, k)`, if already computed.

    Returns:
        (precision, recall), each in [0, 1]. Both depend on N and M.

    Raises:
        InputError: if a set has no more than k images.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, Eq. 1 and 2.
    """
    balls = balls or Balls()
    radii = balls.radii(reals, k) if radii is None else radii
    real = balls.around(samples, reals, radii, edge=True)
    made = balls.around(reals, samples, balls.radii(samples, k), edge=True)
    return Share.of(real[0] > 0), Share.of(made[0] > 0)


def density_coverage(
    samples: np.ndarray,
    reals: np.ndarray,
    *,
    k: int = 5,
    balls: Balls | None = None,
    radii: np.ndarray | None = None,
) -> tuple[Share, Share]:
    """Density and coverage, which bear outliers among the real images.

    Args:
        samples, reals: features [N, D] and [M, D].
        k: neighbours that a ball reaches to.
        balls: how distances are computed.
        radii: `balls.radii(reals, k)`, if already computed.

    Returns:
        (density, coverage); density may exceed 1. For two large sets from one source
        and N = M they are 1 and 1 - 2^-k.

    Raises:
        InputError: if there are no more than k real images.

    Source: Naeem et al. 2020, arXiv:2002.09797, Eq. 4 to 6; a ball does not hold its
        edge, as in the authors' code.
    """
    balls = balls or Balls()
    radii = balls.radii(reals, k) if radii is None else radii
    holding, held = balls.around(samples, reals, radii, edge=False)
    return Share.of(holding / k), Share.of(held > 0)
