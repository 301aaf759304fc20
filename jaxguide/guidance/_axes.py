"""The axes of x that a statistic is taken over, and lengths and spreads over them."""

import math
from typing import Any

import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._checks import is_whole
from jaxguide.paths import Array

# None for all axes but the first.
Axes = int | tuple[int, ...] | None


def check_axes(name: str, axes: Any) -> tuple[int, ...] | None:
    """Axes as a tuple.

    Raises:
        InputError: if they are no integers, or the first is among them.
    """
    if axes is None:
        return None
    axes = tuple(axes) if isinstance(axes, tuple | list) else (axes,)
    if not axes or not all(is_whole(axis) and axis != 0 for axis in axes):
        raise InputError(
            f"{name}: need axes of x other than 0, which is the batch, got "
            f"axes={axes!r}. The last axis is axes=(-1,)."
        )
    return axes


def sample_axes(value: Array, axes: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The axes of `value` [B, *D] that a statistic is taken over, none negative.

    Raises:
        InputError: if there is none, or it is not an axis of a sample.
    """
    if value.ndim < 2:
        raise InputError(
            "guidance: need samples with axes of their own, x [B, *D], got "
            f"x.shape={value.shape}. For single samples, as under jax.vmap, use "
            "guide(..., batch_ndim=0)."
        )
    if axes is None:
        return tuple(range(1, value.ndim))
    if not all(-value.ndim < axis < value.ndim for axis in axes):
        raise InputError(
            f"guidance: need axes of x other than the first, got axes={axes!r} for "
            f"x.shape={value.shape}."
        )
    return tuple(axis % value.ndim for axis in axes)


def norm(value: Array, axes: tuple[int, ...] | None = None) -> Array:
    """Euclidean length over `axes`, by default all but the first, kept to broadcast;
    with a finite gradient at 0."""
    axes = sample_axes(value, axes)
    square = jnp.sum(value * value, axis=axes, keepdims=True)
    # The inner `where` is for the gradient. That of sqrt at 0 is infinite, and the
    # outer one would multiply it by 0, which is NaN.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def spread(value: Array) -> Array:
    """Standard deviation over all axes but the first, kept to broadcast; with a finite
    gradient where the values are equal."""
    axes = sample_axes(value)
    apart = value - value.mean(axes, keepdims=True)
    return norm(apart) / math.sqrt(max(1, math.prod(value.shape[1:])))
