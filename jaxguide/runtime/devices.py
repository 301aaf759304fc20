"""Batches of rows on all devices of this process.

For programs that need no word from other processes: sampling, decoding, encoding,
features. Training lays its state and batches out by itself (`train.parallel`).
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxguide.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")
BATCH, BRANCH, SHARDS = "batch", "branch", "shards"
SPLIT, COPIED = PartitionSpec(BATCH), PartitionSpec()
# Arrays with fewer values are kept whole: to fetch them costs more than to store them.
SMALL = 2**14


def computing_dtype(owner: str, wanted: str) -> str:
    """The dtype that networks compute in on the devices of this process.

    Args:
        owner: what an error begins with.
        wanted: "auto", which is bfloat16 on a TPU and on a GPU that has it, and float32
            elsewhere; or one of `DTYPES`.

    Raises:
        InputError: for another name.
    """
    if wanted == "auto":
        half = jax.default_backend() != "cpu" and is_modern_gpu()
        return "bfloat16" if half else "float32"
    if wanted not in DTYPES:
        raise InputError(
            f"{owner}: need dtype in {('auto', *DTYPES)}, got dtype={wanted!r}. "
            "Leave it out: 'auto' chooses by the device."
        )
    return wanted


def is_modern_gpu() -> bool:
    """Whether every GPU here has bfloat16 and fused attention: Ampere or newer.

    True where there is none: a program may be compiled for another machine.
    """
    versions = [
        getattr(device, "compute_capability", "") for device in jax.local_devices()
    ]
    return all(float(version) >= 8 for version in versions if version)


def summary() -> str:
    """Number and kind of all devices, for people: "8 x NVIDIA H100 80GB HBM3"."""
    kinds = collections.Counter(device.device_kind for device in jax.devices())
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def local_mesh() -> Mesh:
    """The devices of this process in a row, along the axis "batch"."""
    return Mesh(np.array(jax.local_devices()), (BATCH,), axis_types=(AxisType.Auto,))


def branch_mesh(size: int, branches: int) -> Mesh:
    """The devices of this process for few images, ["branch", "batch"].

    Devices in a row hold different images; those in a column hold the same ones, and
    share the branches of a guidance.

    Args:
        size: images, filled up to a multiple of the axis "batch".
        branches: of one step, about equally costly.
    """
    count = len(jax.local_devices())

    def work(rows: int) -> tuple[int, int, int]:
        """Forward passes of the busiest device; then images in all, filled up."""
        images = -(-size // rows)
        return images * -(-branches * rows // count), images * rows, -rows

    rows = min((n for n in range(1, count + 1) if count % n == 0), key=work)
    grid = np.array(jax.local_devices()).reshape(-1, rows)
    return Mesh(grid, (BRANCH, BATCH), axis_types=(AxisType.Auto,) * 2)


def split(rows: Any, mesh: Mesh | None = None) -> Any:
    """Arrays whose leading axis, a multiple of "batch", is cut over the devices."""
    return jax.device_put(rows, NamedSharding(mesh or local_mesh(), SPLIT))


def copied(tree: Any, mesh: Mesh | None = None) -> Any:
    """Arrays that every device holds as a whole."""
    return jax.device_put(tree, NamedSharding(mesh or local_mesh(), COPIED))


def cut(
    path: tuple, shape: Sequence[int], shards: int, axis: str = SHARDS
) -> PartitionSpec:
    """How parameters are cut: along the largest dimension that `shards` divides.

    The first dimension of what belongs to "blocks" is the depth, over which the network
    is scanned; it is never cut. Arrays of fewer than 2^14 values, and those that have
    no such dimension, stay whole.

    Args:
        path: of the array in its tree, as `jax.tree_util` gives it.
        shape: of the array.
        shards: number of parts.
        axis: of the mesh.

    >>> tuple(cut((), (256, 1024), 8))
    (None, 'shards')
    """
    stacked = any(getattr(entry, "key", None) == "blocks" for entry in path)
    free = [d for d in range(int(stacked), len(shape)) if shape[d] % shards == 0]
    if shards == 1 or not free or math.prod(shape) < SMALL:
        return COPIED
    chosen = max(free, key=lambda d: shape[d])
    return PartitionSpec(*(None,) * chosen, axis)


def sharded(tree: Any) -> Any:
    """Arrays of which every device holds the part that `cut` says.

    From host memory each device gets its part alone.
    """
    mesh = local_mesh()

    def put(path: tuple, leaf: Any) -> jax.Array:
        spec = cut(path, np.shape(leaf), mesh.size, BATCH)
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(put, tree)


def sharded_named(name: str, array: np.ndarray) -> jax.Array:
    """The same of one array, by its dotted name: for loading, one array at a time."""
    tree: Any = array
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return jax.tree.leaves(sharded(tree))[0]


def round_up(count: int, mesh: Mesh | None = None) -> int:
    """The next multiple of the devices that a batch is cut over, by default all."""
    devices = (mesh or local_mesh()).shape[BATCH]
    return -(-count // devices) * devices


def in_batches(
    call: Callable[[Any], Any], rows: Any, size: int, mesh: Mesh | None = None
) -> Any:
    """`call` on batches of `size` rows over all devices, results joined on the host.

    The last batch is filled up with its last row and cut again, so that one compiled
    program serves any number of rows.

    Args:
        call: from rows [size, ...] to arrays [size, ...], or trees of them.
        rows: arrays [N, ...].
        size: of a batch; a multiple of the devices over which it is cut.
        mesh: whose axis "batch" cuts a batch; None is `local_mesh`.

    Returns:
        numpy arrays [N, ...].
    """
    count = len(jax.tree.leaves(rows)[0])
    results = []
    # At least once: the shapes of no results at all are known from a call alone.
    for first in range(0, max(count, 1), size):
        batch = jax.tree.map(lambda a, at=first: _filled(a[at : at + size], size), rows)
        results.append(jax.device_get(call(split(batch, mesh))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    missing = [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, missing, "edge" if len(rows) else "constant")
