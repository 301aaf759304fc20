"""Files of moments: `.npz` that is read where it lies, or ArrayRecord.

Both give the moments of any example without reading its neighbours, so that a shuffled
set may be far larger than memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxguide.data.latent_plan import Plan
from jaxguide.errors import InputError
from jaxguide.runtime import shards
from jaxguide.runtime.npz import Npz

_LABEL = np.dtype("<i4")


class Shards(Protocol):
    """The files of a folder, open for reading."""

    def read(self, picked: np.ndarray, side: np.ndarray) -> Any:
        """Moments [n, h, w, 2c] as stored and labels int32 [n].

        Args:
            picked: int64 [n], numbers of examples.
            side: int64 [n], 1 for the mirror image.
        """
        ...


class NpzShards:
    """Sharded `.npz`, mapped into memory when first touched.

    Args:
        folder: where the files are.
        plan: what they hold: `moments` [n, sides, h, w, 2c] and `labels` [n].
    """

    def __init__(self, folder: Path, plan: Plan):
        self._folder, self._plan = folder, plan
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, picked: np.ndarray, side: np.ndarray) -> Any:
        """See `Shards.read`."""
        moments = np.empty((len(picked), *self._plan.shape), self._plan.dtype)
        labels = np.empty(len(picked), np.int32)
        shard, row = np.divmod(picked, self._plan.shard_size)
        # File by file, so that a shuffled batch touches each file once.
        for one in np.unique(shard):
            here = np.flatnonzero(shard == one)
            stored, names = self._mapped(int(one))
            moments[here] = stored[row[here], side[here]]
            labels[here] = names[row[here]]
        return moments, labels

    def _mapped(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        if shard not in self._open:
            path = self._folder / self._plan.files.file(shard)
            file = Npz(path, "LatentCache")
            moments, labels = file.map("moments"), file.map("labels")
            count = len(self._plan.files.span(shard))
            wanted = (count, self._plan.sides, *self._plan.shape)
            if (moments.shape, labels.shape) != (wanted, (count,)):
                raise file.refused(f"moments {list(wanted)!r}", repr(moments.shape))
            self._open[shard] = moments, labels
        return self._open[shard]


class RecordShards:
    """ArrayRecord files; a record is a label and the moments of one side.

    Args:
        folder: where the files are.
        plan: what they hold: record `i * sides + side` belongs to example i.
    """

    def __init__(self, folder: Path, plan: Plan):
        # Named with their lengths, or the package opens every file to count records.
        from array_record.python import array_record_data_source

        self._folder, self._plan, files = folder, plan, plan.files
        ranges = [
            f"{folder / files.file(shard)}[0:{len(files.span(shard)) * plan.sides}]"
            for shard in range(files.number)
        ]
        self._records = array_record_data_source.ArrayRecordDataSource(ranges)

    def read(self, picked: np.ndarray, side: np.ndarray) -> Any:
        """See `Shards.read`."""
        keys = (picked * self._plan.sides + side).tolist()
        try:
            records = self._records.__getitems__(keys)
        except Exception as error:  # the package raises several types
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"LatentCache: need whole files of array_record, got "
                f"path={str(self._folder)!r}: {reason}. Run "
                f"{self._plan.files.kind.command} again."
            ) from error
        labels = [np.frombuffer(record, _LABEL, 1)[0] for record in records]
        moments = [
            np.frombuffer(record, self._plan.dtype, offset=_LABEL.itemsize)
            for record in records
        ]
        shape = (len(records), *self._plan.shape)
        return np.stack(moments).reshape(shape), np.array(labels, np.int32)


def _write_npz(path: Path, moments: np.ndarray, labels: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, moments=moments, labels=labels)


def _write_records(path: Path, moments: np.ndarray, labels: np.ndarray) -> None:
    module = importlib.import_module("array_record.python.array_record_module")
    # Groups of one: a reader unpacks a whole group to give one record of it.
    writer = module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for sides, label in zip(moments, labels.astype(_LABEL), strict=True):
        for side in sides:
            writer.write(label.tobytes() + side.tobytes())
    writer.close()


WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray], None]] = {
    "npz": _write_npz,
    "array_record": _write_records,
}
READERS: dict[str, Callable[[Path, Plan], Shards]] = {
    "npz": NpzShards,
    "array_record": RecordShards,
}


def write_shard(path: Path, format: str, moments: np.ndarray, labels: np.ndarray):
    """Writes a file that is there as a whole or not at all.

    Args:
        path: of the file.
        format: key of `WRITERS`.
        moments: [n, sides, h, w, 2c].
        labels: int32 [n].
    """
    shards.write_whole(path, lambda part: WRITERS[format](part, moments, labels))


def open_shards(folder: Path, plan: Plan) -> Shards:
    """The files of a folder.

    Raises:
        InputError: if the package that reads them is missing.
    """
    try:
        return READERS[plan.format](folder, plan)
    except ImportError as error:
        raise InputError(
            f"LatentCache: need the package array_record, got format={plan.format!r}"
            f" without it. pip install array-record, or encode to {'npz'!r}."
        ) from error
