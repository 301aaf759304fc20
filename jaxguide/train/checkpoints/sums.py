"""A number per array that differs if a copy differs from the original."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def bit_sums(tree: Any) -> list[int]:
    """One number in [0, 2^32) per array, from the bits and the place of every value.

        sum over i of (2 i + 1) * bits_i    modulo 2^32

    A change of a single value always changes it. The sum is exact, so it does not
    depend on how the array is cut over devices; all processes have to call it.

    Args:
        tree: of arrays of at most 32 bits per value, or of PRNG keys.

    >>> bit_sums({"a": jnp.array([3, 5])})
    [18]
    """
    return [int(value) for value in _sums(jax.tree.leaves(tree))]


@jax.jit
def _sums(leaves: list[Array]) -> list[Array]:
    return [_sum(_bits(leaf)) for leaf in leaves]


def _sum(bits: Array) -> Array:
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        along = lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        place = place + jnp.uint32(stride) * along
    return jnp.sum((jnp.uint32(2) * place + jnp.uint32(1)) * bits, dtype=jnp.uint32)


def _bits(leaf: Array) -> Array:
    """The values of an array as uint32."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
