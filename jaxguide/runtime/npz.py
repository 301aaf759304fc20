"""One reader of `.npz` files, of whoever wrote them.

Nothing in such a file is believed: headers are held against the sizes in the directory
and in the file before memory is taken, checksums against the contents, and objects are
refused, since reading them runs code.

Limits: a compressed array that unpacks to more than `UNPACKED` bytes may be no more
than `RATIO` times as large as what is stored.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide.errors import InputError

UNPACKED, RATIO = 1 << 30, 200
_ZIP_HEADER, _ZIP_LENGTHS = 30, 26  # of a local file header, and where its lengths are
_CHUNK = 1 << 20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True)
class Header:
    """What an array in a file is, checked against its size there.

    Args:
        shape, dtype: of the array.
        fortran: whether its first axis is the fastest.
        stored: whether it lies there as it is, not compressed.
        start: of its numbers, in bytes after the beginning of the member.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    stored: bool
    start: int


class Npz:
    """An `.npz` file; opening it reads the list of its arrays alone.

    Args:
        path: of the file.
        owner: who reads, for errors.

    Attributes:
        fields: names of its arrays, in the order of the file.

    Raises:
        InputError: if there is no such file, or it is no whole `.npz`; one line that
            names it, here and in all methods.
    """

    def __init__(self, path: str | Path, owner: str = "read_npz"):
        self.path, self._owner = Path(path).expanduser(), owner
        if not self.path.is_file():
            raise InputError(
                f"{owner}: need an existing .npz file, got path={str(path)!r}. "
                "Check the path."
            )
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except Exception as error:  # of damaged files: zipfile raises many types
            raise self.damaged(error) from error
        self.fields = tuple(
            name.removesuffix(".npy") for name in names if name.endswith(".npy")
        )

    def need(self, *fields: str) -> None:
        """Raises InputError unless the file has these arrays."""
        missing = [field for field in fields if field not in self.fields]
        if missing:
            raise InputError(
                f"{self._owner}: need the fields {list(fields)!r}, got "
                f"fields={list(self.fields)!r} in path={str(self.path)!r}. Add "
                f"{missing[0]!r}."
            )

    def first(self, fields: Sequence[str]) -> str:
        """The first of the fields that the file has.

        Raises:
            InputError: if it has none.
        """
        for field in fields:
            if field in self.fields:
                return field
        raise InputError(
            f"{self._owner}: need one of the arrays {list(fields)!r}, got "
            f"{sorted(self.fields)!r} in path={str(self.path)!r}. Write the images "
            "with np.savez(path, images)."
        )

    def header(self, field: str) -> Header:
        """Shape and type of an array, without reading it.

        Raises:
            InputError: if it is missing, of objects, or its size is not what it says.
        """
        self.need(field)
        try:
            with zipfile.ZipFile(self.path) as archive:
                inside = archive.getinfo(f"{field}.npy")
                with archive.open(inside) as member:
                    read = _HEADERS[np.lib.format.read_magic(member)]
                    shape, fortran, dtype = read(member)
                    start = member.tell()
        except Exception as error:
            raise self.damaged(error, field) from error
        if dtype.hasobject:
            raise self._refused(field, "numbers or text", "Python objects")
        count = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or start + count != inside.file_size:
            actual = f"{inside.file_size - start} bytes for {list(shape)!r} of {dtype}"
            raise self._refused(field, f"{count} bytes", actual)
        stored = inside.compress_type == zipfile.ZIP_STORED
        packed, whole = inside.compress_size, self.path.stat().st_size
        if packed > whole or (stored and packed != inside.file_size):
            raise self._refused(field, f"{packed} bytes", f"a file of {whole}")
        if count > UNPACKED and not stored and count > RATIO * packed:
            wanted = f"at most {RATIO} times what is stored, {packed} bytes"
            raise self._refused(field, wanted, f"{count} bytes")
        return Header(shape, dtype, fortran, stored, start)

    def read(self, field: str) -> np.ndarray:
        """An array in memory, its checksum compared.

        Raises:
            InputError: as `header`, or if the file is damaged.
        """
        header = self.header(field)
        try:
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open(f"{field}.npy") as member,
            ):
                member.read(header.start)
                content = bytearray(math.prod(header.shape) * header.dtype.itemsize)
                _fill(member, memoryview(content))
        except Exception as error:
            raise self.damaged(error, field) from error
        order = "F" if header.fortran else "C"
        return np.ndarray(header.shape, header.dtype, content, order=order)

    def map(self, field: str) -> np.ndarray:
        """An array that is not compressed, as a read-only map of the file.

        Its checksum is not compared; see `check`.

        Raises:
            InputError: as `header`, or if it is compressed.
        """
        header = self.header(field)
        if not header.stored:
            raise self._refused(field, "an array that is not compressed", "compressed")
        order = "F" if header.fortran else "C"
        if not math.prod(header.shape):  # nothing can be mapped
            return np.empty(header.shape, header.dtype, order)
        start = self._begin(field) + header.start
        try:
            return np.memmap(self.path, header.dtype, "r", start, header.shape, order)
        except Exception as error:
            raise self.damaged(error, field) from error

    def check(self, field: str) -> None:
        """Reads an array and compares its checksum.

        Raises:
            InputError: if it was changed after it was written.
        """
        try:
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open(f"{field}.npy") as member,
            ):
                while member.read(_CHUNK):
                    pass
        except Exception as error:
            raise self.damaged(error, field) from error

    def _begin(self, field: str) -> int:
        """Where the member of an array begins."""
        # By the lengths of the local header, which may differ from those in the
        # directory at the end of the file: zip allows other extra fields in the two.
        try:
            with zipfile.ZipFile(self.path) as archive:
                inside = archive.getinfo(f"{field}.npy")
            with self.path.open("rb") as file:
                file.seek(inside.header_offset + _ZIP_LENGTHS)
                name, extra = struct.unpack("<HH", file.read(4))
        except Exception as error:
            raise self.damaged(error, field) from error
        return inside.header_offset + _ZIP_HEADER + name + extra

    def refused(
        self,
        wanted: str,
        actual: str,
        fix: str = "Write the file again with np.savez.",
    ) -> InputError:
        """The error for a file that holds something else than what is needed."""
        return InputError(
            f"{self._owner}: need {wanted}, got {actual} in path={str(self.path)!r}. "
            f"{fix}"
        )

    def _refused(self, field: str, wanted: str, actual: str) -> InputError:
        return self.refused(f"{wanted} in the array {field!r}", actual)

    def damaged(self, error: Exception, field: str = "") -> InputError:
        """The error for a file, or an array in it, that cannot be read."""
        if isinstance(error, InputError):
            return error
        inside = f" in the array {field!r}" if field else ""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not field and _is_npy(self.path):
            reason = "it is one array of np.save, not an .npz of np.savez"
        return InputError(
            f"{self._owner}: need a whole .npz file, got path={str(self.path)!r}: "
            f"{reason}{inside}. Write or fetch it again."
        )


def _fill(member: Any, buffer: memoryview) -> None:
    """Reads a member to its end, where zipfile compares the checksum."""
    position = 0
    while chunk := member.read(_CHUNK):
        buffer[position : position + len(chunk)] = chunk
        position += len(chunk)
    if position != len(buffer):
        raise zlib.error(f"it ends after {position} of {len(buffer)} bytes")


def _is_npy(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6) == np.lib.format.MAGIC_PREFIX
    except OSError:
        return False


def read_npz(
    path: str | Path, fields: Sequence[str], owner: str = "read_npz"
) -> dict[str, np.ndarray]:
    """Named arrays of an `.npz` file, in memory.

    Raises:
        InputError: as `Npz`.
    """
    archive = Npz(path, owner)
    archive.need(*fields)
    return {field: archive.read(field) for field in fields}
