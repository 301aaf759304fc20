"""Batches of rows on all devices of this process.

For programs that need no word from other processes: sampling, decoding, encoding,
features. Training lays its state and batches out by itself (`train.parallel`).
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxguide.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")
BATCH = "batch"
SPLIT, COPIED = PartitionSpec(BATCH), PartitionSpec()


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


def split(rows: Any) -> Any:
    """Arrays whose leading axis, a multiple of the devices, is cut over them."""
    return jax.device_put(rows, NamedSharding(local_mesh(), SPLIT))


def copied(tree: Any) -> Any:
    """Arrays that every device holds as a whole."""
    return jax.device_put(tree, NamedSharding(local_mesh(), COPIED))


def round_up(count: int) -> int:
    """The next multiple of the number of devices, which divides evenly over them."""
    devices = len(jax.local_devices())
    return -(-count // devices) * devices


def in_batches(call: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """`call` on batches of `size` rows over all devices, results joined on the host.

    The last batch is filled up with its last row and cut again, so that one compiled
    program serves any number of rows.

    Args:
        call: from rows [size, ...] to arrays [size, ...], or trees of them.
        rows: arrays [N, ...].
        size: of a batch; a multiple of the devices.

    Returns:
        numpy arrays [N, ...].
    """
    count = len(jax.tree.leaves(rows)[0])
    results = []
    # At least once: the shapes of no results at all are known from a call alone.
    for first in range(0, max(count, 1), size):
        batch = jax.tree.map(lambda a, at=first: _filled(a[at : at + size], size), rows)
        results.append(jax.device_get(call(split(batch))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    missing = [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, missing, "edge" if len(rows) else "constant")
