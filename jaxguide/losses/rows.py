"""Networks evaluated on those rows of a batch alone that make use of them.

Which rows these are is random, how many at most is known before: a program has fixed
shapes. Every row draws a lot; the lots of a batch are one random number plus multiples
of the golden ratio, modulo 1. So each is uniform, as if drawn alone, and among any
neighbours about the same share falls into an interval: the largest number is counted on
the host, in integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType

from jaxguide.losses.draws import Draws

WHOLE = 2**32
GOLDEN = 2_654_435_769  # 2^32 times the golden ratio, modulo 2^32; odd


class Chosen(NamedTuple):
    """Rows whose lot fell into an interval.

    Attributes:
        mask: bool [B]; it may be narrowed, but no row be added.
        length: of the interval, in units of 2^-32.
        stride: see `Draws`.
    """

    mask: Array
    length: int
    stride: int


class Lots(NamedTuple):
    """One lot per row.

    Attributes:
        value: uint32 [B], in units of 2^-32.
        stride: see `Draws`.
    """

    value: Array
    stride: int

    def between(self, low: float, high: float) -> Chosen:
        """Rows with a lot in [low, high), inside [0, 1]: `high - low` of all."""
        start, end = (round(WHOLE * float(edge)) for edge in (low, high))
        length = end - start
        if length >= WHOLE:
            mask = jnp.ones(self.value.shape, bool)
        else:
            # Unsigned: below the start, the difference wraps around and is large.
            mask = self.value - jnp.uint32(start % WHOLE) < jnp.uint32(length)
        return Chosen(mask, length, self.stride)


def lots(draws: Draws) -> Lots:
    """One lot per row: uniform, and spread evenly over neighbours."""
    first = jax.random.bits(draws.shared, (), jnp.uint32)
    value = first + draws.place.astype(jnp.uint32) * jnp.uint32(GOLDEN)
    return Lots(value, draws.stride)


@functools.lru_cache(maxsize=1024)
def most(count: int, length: int, stride: int = 1) -> int:
    """The most of `count` neighbours that an interval of `length` can hold.

    Args:
        count: rows, each `stride` places after the one before.
        length: in units of 2^-32.
        stride: of the places.
    """
    value = np.sort(
        np.arange(count, dtype=np.uint64) * (GOLDEN * stride % WHOLE) % WHOLE
    )
    around = np.concatenate([value, value + np.uint64(WHOLE)])
    # A fullest interval begins at some row: slide it right until it does.
    inside = np.searchsorted(around, value + np.uint64(length)) - np.arange(count)
    return int(inside.max(initial=0))


def share_of_rows(count: int, chance: float, stride: int = 1) -> float:
    """The share of `count` rows on one device that is evaluated; 0 means very many."""
    chance = min(max(chance, 0.0), 1.0)  # others are refused by the loss
    if not count:
        return chance
    return most(count, round(WHOLE * chance), stride) / count


def on_rows(function: Callable[..., Array], chosen: Chosen, *trees: Any) -> Array:
    """`function(*trees)` in the chosen rows; elsewhere numbers without meaning.

    The function sees a fixed number of rows of every device's part of the batch, the
    most that can be chosen there, and runs where they lie; where none can, not at all.

    Args:
        function: of arrays with leading axis [B], row by row, to [B, *D].
        chosen: from `Lots.between`.
        *trees: pytrees of arrays; leaves without axes, and what a batch shares in
            `Draws`, stay as they are.

    Returns:
        [B, *D]. NaN in a row that the count did not foresee: draws made by hand, whose
        places are not `stride` apart.
    """
    count = len(chosen.mask)
    parts = _parts(count)
    each = count // parts
    size = most(each, chosen.length, chosen.stride)
    if size >= each:
        return function(*trees)
    if size == 0:
        shape = jax.eval_shape(function, *trees)
        return jnp.zeros(shape.shape, shape.dtype)
    mask = chosen.mask.reshape(parts, each)
    index = jnp.argsort(~mask, axis=1, stable=True)[:, :size]
    found = function(*(_picked(tree, index, each) for tree in trees))
    place = jnp.cumsum(mask, axis=1) - 1
    found = _pick(found, jnp.clip(place, 0, size - 1), size)
    known = (place < size).reshape(count, *(1,) * (found.ndim - 1))
    return jnp.where(known, found, jnp.nan)


def _parts(count: int) -> int:
    """Neighbours that lie on one device: into how many parts a mesh cuts the rows."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = mesh.size if AxisType.Auto in mesh.axis_types else 1
    return parts if count % parts == 0 else 1


def _picked(tree: Any, index: Array, each: int) -> Any:
    if isinstance(tree, Draws):
        keys, place = (_pick(leaf, index, each) for leaf in (tree.keys, tree.place))
        return tree._replace(keys=keys, place=place)
    return jax.tree.map(
        lambda leaf: _pick(leaf, index, each) if jnp.ndim(leaf) else leaf, tree
    )


def _pick(leaf: Array, index: Array, each: int) -> Array:
    """Rows `index` [parts, k] of every `each` rows, [parts * k, *D]."""
    leaf = leaf.reshape(len(index), each, *leaf.shape[1:])
    rows = jax.vmap(lambda part, place: part[place])(leaf, index)
    return rows.reshape(index.size, *rows.shape[2:])
