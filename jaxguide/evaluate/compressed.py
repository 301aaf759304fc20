"""Arrays in `.npz` files, read row by row: neither is in memory as a whole."""

from __future__ import annotations

import math
import zipfile

import numpy as np

from jaxguide.runtime.npz import Npz

_SKIP = 64  # rows at once, while skipping


class Stored:
    """An array that is not compressed; the first reading compares its checksum.

    Args:
        file: that holds it.
        field: name of the array.
    """

    def __init__(self, file: Npz, field: str):
        self._file, self._field, self._sound = file, field, False
        self._array = file.map(field)
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        """Rows of a slice."""
        if not self._sound:
            self._file.check(self._field)
            self._sound = True
        return self._array[span]


class Compressed:
    """A compressed array: unpacked as it is read, from front to back.

    Args:
        file: that holds it.
        field: name of the array, C-ordered.
    """

    def __init__(self, file: Npz, field: str):
        self._file, self._field = file, field
        header = file.header(field)
        self.shape, self.dtype, self._start = header.shape, header.dtype, header.start
        self._open()

    def _open(self) -> None:
        self._member = zipfile.ZipFile(self._file.path).open(f"{self._field}.npy")
        self._member.read(self._start)
        self._next = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        """Rows of a slice; going back starts again at the front.

        Raises:
            InputError: if the file is damaged; its checksum is compared at its end.
        """
        # Deflate has no index: the only way to a row is through all rows before it.
        start, stop, _ = span.indices(len(self))
        try:
            if start < self._next:
                self._open()
            while self._next < start:
                self._rows(min(_SKIP, start - self._next))
            return self._rows(stop - start)
        except Exception as error:  # zipfile raises many types for damaged files
            raise self._file.damaged(error, self._field) from error

    def _rows(self, count: int) -> np.ndarray:
        shape = (count, *self.shape[1:])
        content = self._member.read(math.prod(shape) * self.dtype.itemsize)
        self._next += count
        return np.ndarray(shape, self.dtype, content)


def open_array(file: Npz, field: str) -> Stored | Compressed | np.ndarray:
    """An array of an `.npz`, read as its rows are asked for where that is possible."""
    header = file.header(field)
    if header.stored:
        return Stored(file, field)
    # Rows of a compressed array whose first axis is the fastest lie all over it.
    return file.read(field) if header.fortran else Compressed(file, field)
