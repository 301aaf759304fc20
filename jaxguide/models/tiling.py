"""Large images in overlapping tiles, so that activations of one tile are in memory.

    tile k begins at min(k · (tile - overlap), edge - tile)
    out = (1 - y / extent) · tile above + (y / extent) · tile,   y = 0 .. extent - 1

over the `extent` rows that two tiles share, first rows, then columns in the same way.

Source: `enable_tiling` of diffusers' AutoencoderKL, whose rule of blending this is.
Differs from the source: all tiles have one shape and are run by one compiled program.
    There the last tile is cut short where the image ends, down to a row of one latent
    pixel; here it begins earlier and shares more with the tile before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxguide.errors import InputError


def tiled(
    function: Callable[[Array], Array],
    x: Array,
    *,
    tile: int,
    overlap: int,
    cell_in: int = 1,
    cell_out: int = 1,
) -> Array:
    """`function(x)`, computed tile by tile.

    Args:
        function: of [B, h · cell_in, w · cell_in, C] to [B, h · cell_out,
            w · cell_out, D] for any h and w.
        x: [B, H · cell_in, W · cell_in, C].
        tile: edge of a tile in cells.
        overlap: cells that neighbouring tiles share, at least; less than `tile`.
        cell_in, cell_out: edge of a cell in pixels of the input and the output.

    Returns:
        [B, H · cell_out, W · cell_out, D]; `function(x)` itself if one tile covers all.

    Raises:
        InputError: unless 0 <= overlap < tile.
    """
    if not 0 <= overlap < tile:
        raise InputError(
            f"tiled: need 0 <= overlap < tile, got tile={tile!r}, overlap={overlap!r}. "
            "A quarter of the tile is usual."
        )
    edges = [edge // cell_in for edge in x.shape[1:3]]
    if max(edges) <= tile:
        return function(x)
    rows, columns = (_starts(edge, tile, overlap) for edge in edges)
    height, width = (min(edge, tile) for edge in edges)
    shape = (x.shape[0], height * cell_in, width * cell_in, x.shape[3])

    def one(corner: Array) -> Array:
        return function(lax.dynamic_slice(x, (0, *corner, 0), shape))

    corners = jnp.array(list(itertools.product(rows, columns)), jnp.int32)
    tiles = lax.map(one, corners * cell_in)
    steps = [
        [end - start for start, end in itertools.pairwise(s)] for s in (rows, columns)
    ]
    return _joined(
        tiles.reshape(len(rows), len(columns), *tiles.shape[1:]),
        *([step * cell_out for step in each] for each in steps),
    )


def _starts(edge: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin; the last one ends where the image does."""
    last = max(edge - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _joined(tiles: Array, down: Sequence[int], right: Sequence[int]) -> Array:
    """One image of tiles [rows, columns, B, h, w, D].

    Args:
        tiles: neighbours overlap.
        down, right: pixels between the beginnings of neighbouring tiles.
    """
    height, width = tiles.shape[3:5]
    strips, above = [], []
    for row in range(tiles.shape[0]):
        done = []
        for column in range(tiles.shape[1]):
            piece = tiles[row, column]
            if row:
                extent = height - down[row - 1]
                piece = _faded(above[column], piece, extent, axis=1)
            if column:
                extent = width - right[column - 1]
                piece = _faded(done[-1], piece, extent, axis=2)
            done.append(piece)
        parts = [
            one[:, :, :end] for one, end in zip(done, [*right, width], strict=True)
        ]
        strips.append(jnp.concatenate(parts, axis=2))
        above = done
    ends = [*down, height]
    kept = [strip[:, :end] for strip, end in zip(strips, ends, strict=True)]
    return jnp.concatenate(kept, axis=1)


def _faded(before: Array, after: Array, extent: int, *, axis: int) -> Array:
    """`after`; its first `extent` pixels come gradually out of the end of `before`."""
    if not extent:
        return after
    shape = [1] * after.ndim
    shape[axis] = extent
    ramp = (jnp.arange(extent) / extent).astype(after.dtype).reshape(shape)
    end = before.shape[axis]
    old = lax.slice_in_dim(before, end - extent, end, axis=axis)
    new = lax.slice_in_dim(after, 0, extent, axis=axis)
    rest = lax.slice_in_dim(after, extent, end, axis=axis)
    return jnp.concatenate([old * (1 - ramp) + new * ramp, rest], axis=axis)
