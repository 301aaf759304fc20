"""Compressed arrays in `.npz` files, without unpacking them as a whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

_SKIP = 64  # rows at once, while skipping


class Compressed:
    """A compressed array in an `.npz`: unpacked as it is read, from front to back.

    Args:
        path: of the file.
        field: name of the array, C-ordered.
    """

    def __init__(self, path: Path, field: str):
        self._path, self._field = path, field
        self._open()

    def _open(self) -> None:
        self._member = zipfile.ZipFile(self._path).open(f"{self._field}.npy")
        version = np.lib.format.read_magic(self._member)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self.shape, _, self.dtype = header(self._member)
        self._next = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        """Rows of a slice; going back starts again at the front."""
        # Deflate has no index: the only way to a row is through all rows before it.
        start, stop, _ = span.indices(len(self))
        if start < self._next:
            self._open()
        while self._next < start:
            self._rows(min(_SKIP, start - self._next))
        return self._rows(stop - start)

    def _rows(self, count: int) -> np.ndarray:
        shape = (count, *self.shape[1:])
        content = self._member.read(int(np.prod(shape)) * self.dtype.itemsize)
        self._next += count
        return np.frombuffer(content, self.dtype).reshape(shape)
