"""Gaussian blur over a grid as two matrix products, for queries and for images."""

import math

import jax.numpy as jnp
import numpy as np

from jaxguide.paths import Array, widen


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """The blur of `size` values in a row as a matrix, float64 [size, size].

    The kernel has ceil(6 sigma) taps, made odd, and no more than the smallest odd
    number >= `size`; the border is reflected without repeating the edge. Rows sum to 1;
    `sigma` = inf is the mean, 0 the identity.
    """
    if math.isinf(sigma):
        return np.full((size, size), 1 / size)
    taps = math.ceil(6 * sigma)
    radius = min(taps // 2, size // 2)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    matrix = np.zeros((size, size))
    for row in range(size):
        where = np.abs(row + offsets)  # reflects at 0, then at size - 1
        where = np.where(where >= size, 2 * (size - 1) - where, where)
        np.add.at(matrix[row], where, weights / weights.sum())
    return matrix


def blur(values: Array, sigma: float, axes: tuple[int, int]) -> Array:
    """`values` blurred along two axes, in their dtype (float32 or wider inside)."""
    wide = widen(values)
    for axis in axes:
        matrix = jnp.asarray(blur_matrix(wide.shape[axis], sigma), wide.dtype)
        wide = jnp.moveaxis(jnp.tensordot(matrix, wide, axes=(1, axis)), 0, axis)
    return wide.astype(values.dtype)
