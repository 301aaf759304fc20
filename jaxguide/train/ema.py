"""Exponential moving average of parameters."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide.errors import InputError

Tree = TypeVar("Tree")


def ema_decay(step: Array, *, decay: float, warmup: bool = True) -> Array:
    """Decay at update number `step`, counted from 0.

        min(decay, (1 + step) / (10 + step))    with warm-up, else decay

    The warm-up keeps random initial weights out of the average of a short run.

    Args:
        step: int [].
        decay: final decay in [0, 1); 0 makes the average the newest value.
        warmup: start with a short memory.

    Returns:
        float32 [].

    Raises:
        InputError: if `decay` is out of range.
    """
    if not 0 <= decay < 1:
        raise InputError(
            f"ema_decay: need 0 <= decay < 1, got decay={decay!r}. 0.999 is common."
        )
    final = jnp.asarray(decay, jnp.float32)
    if not warmup:
        return final
    count = jnp.asarray(step).astype(jnp.float32)
    return jnp.minimum(final, (1 + count) / (10 + count))


def ema_update(ema_params: Tree, params: Tree, decay: Array) -> Tree:
    """One update: `ema + (1 - decay) * (params - ema)`; dtype of `ema_params` kept.

    Args:
        ema_params: the average so far; any tree of arrays.
        params: the newest values, same structure.
        decay: float [] in [0, 1].

    Returns:
        The new average.
    """

    def update(average: Array, value: Array) -> Array:
        rate = (1 - decay).astype(average.dtype)
        return average + rate * (value.astype(average.dtype) - average)

    return jax.tree.map(update, ema_params, params)
