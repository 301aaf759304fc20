"""Shift, scale and gate of all blocks at known times and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jax import Array, lax


class ModulationTable(NamedTuple):
    """Made by `models.tabulate`; row m L + l is that of time m and label l."""

    times: Array  # float [M]
    labels: Array  # int32 [L]
    blocks: Array  # [depth, M L, 6 width]
    ends: Array  # [M L, 2 width]


def looked_up(
    table: ModulationTable,
    t: Array,
    label: Array,
    compute: Callable[[], tuple[Array, Array]],
) -> tuple[Array, Array]:
    """The rows of t [B] and label [B]; what `compute` gives where one is not there.

    Returns:
        Modulations [depth, B, 6 width] and [B, 2 width].
    """
    times = table.times[None] == t[:, None]
    labels = table.labels[None] == label[:, None]
    known = (times.any(1) & labels.any(1)).all()
    rows = times.argmax(1) * len(table.labels) + labels.argmax(1)
    # A branch may ask for a time of its own (`sg`), which no table has.
    return lax.cond(known, lambda: (table.blocks[:, rows], table.ends[rows]), compute)
