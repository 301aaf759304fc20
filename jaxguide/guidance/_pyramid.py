"""Laplacian pyramids: blur and resize along chosen axes, as products with matrices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.paths import Array

# Accelerators otherwise round the factors of a float32 product to fewer bits.
PRECISE = jax.lax.Precision.HIGHEST
KERNEL = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def pyramid(
    x: Array, levels: int, axes: tuple[int, ...]
) -> list[tuple[Array, tuple[int, ...]]]:
    """Levels of a Laplacian pyramid, highest first, and the sides each came from.

    The coarsest level is the blurred rest; its sides are its own.
    """
    bands = []
    # A level is what enlarging the next one misses, so the levels add up to x
    # whatever the blur is.
    for _ in range(levels - 1):
        sizes = tuple(x.shape[axis] for axis in axes)
        smaller = resize(x, tuple(max(n // 2, 1) for n in sizes), axes, down)
        bands.append((x - resize(smaller, sizes, axes, up), sizes))
        x = smaller
    return [*bands, (x, tuple(x.shape[axis] for axis in axes))]


def resize(
    x: Array, sizes: tuple[int, ...], axes: tuple[int, ...], matrix: Callable
) -> Array:
    """`matrix(old side, new side)` along every axis."""
    # A matrix per axis and not a convolution: blur, border and new side are then one
    # product, for any side and any number of axes.
    for axis, size in zip(axes, sizes, strict=True):
        along = jnp.asarray(matrix(x.shape[axis], size), x.dtype)
        x = jnp.moveaxis(
            jnp.tensordot(along, x, axes=(1, axis), precision=PRECISE), 0, axis
        )
    return x


@functools.lru_cache(maxsize=256)
def down(old: int, new: int) -> np.ndarray:
    """Blur, then bilinear resize: [new, old]; the identity where nothing shrinks."""
    return np.eye(old) if new == old else bilinear(old, new) @ blur(old)


@functools.lru_cache(maxsize=256)
def up(old: int, new: int) -> np.ndarray:
    """Bilinear resize, then blur: [new, old]."""
    return np.eye(old) if new == old else blur(new) @ bilinear(old, new)


def blur(size: int) -> np.ndarray:
    """The 5-tap binomial kernel at borders mirrored about the last pixel."""
    places = np.pad(np.arange(size), 2, mode="reflect")
    matrix = np.zeros((size, size))
    for row in range(size):
        # `add.at`, since a mirrored pixel may occur twice in one row.
        np.add.at(matrix[row], places[row : row + 5], KERNEL)
    return matrix


def bilinear(old: int, new: int) -> np.ndarray:
    """Linear interpolation at pixel centres, [new, old]; no antialiasing."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, old - 1)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1 - (place - low))
    np.add.at(matrix, (np.arange(new), high), place - low)
    return matrix
