"""One safetensors file: its header, checked before anything is read, and its arrays.

The header is judged against the size of the file, so that nothing is allocated for a
header that lies. An array is read into memory of its own, without a map of the file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16 and the types of 8 bits)
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxguide.errors import InputError

# A name with its shape has about 100 bytes: a real header has less than 1 MB.
LONGEST_HEADER = 10_000_000
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


class Stored(NamedTuple):
    """One array in a file.

    Attributes:
        shape: of the array.
        dtype: its numpy name; the file's own word where numpy has no such type.
        start: its first byte in the file.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int


class Header(NamedTuple):
    """What a file says of itself: texts by name, and arrays by name."""

    metadata: dict[str, str]
    arrays: dict[str, Stored]


def check_regular(owner: str, path: Path) -> None:
    """Refuses what is no file with bytes in it, before it is opened.

    A named pipe would wait for ever, a device may have no end.

    Raises:
        InputError: if it is missing, a folder, a pipe, a device, empty or unreadable.
    """
    try:
        regular, folder, there = path.is_file(), path.is_dir(), path.exists()
        first = _first(path) if regular else b""
    except OSError as error:
        raise InputError(
            f"{owner}: need a file that can be read, got path={str(path)!r}: "
            f"{error.strerror}. Check its name and rights."
        ) from error
    if not regular:
        kind = "a folder" if folder else "a pipe, device or socket"
        raise InputError(
            f"{owner}: need an existing file, got path={str(path)!r}, "
            f"{kind if there else 'which is not there'}. Check the path."
        )
    if not first:
        raise InputError(
            f"{owner}: need a file with arrays, got path={str(path)!r} of 0 bytes. "
            "Copy it again."
        )


def read_header(owner: str, path: Path) -> Header:
    """The header of a file; no array is read.

    Args:
        owner: the public name that an error begins with.
        path: of the file.

    Raises:
        InputError: if it is no safetensors file, ends early, says something that
            cannot be, or has two arrays of one name.
    """
    check_regular(owner, path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise _refusal(owner, path, f"Its header would have {length:,} bytes")
        text = file.read(length)
    try:
        # The library holds names, types, shapes and offsets against each other, and
        # against the size of the file.
        with safe_open(str(path), framework="numpy"):
            pass
        known = json.loads(text, object_pairs_hook=_without_twins)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _refusal(owner, path, str(error) or type(error).__name__) from error
    metadata = known.pop("__metadata__", None) or {}
    arrays = {
        name: Stored(
            tuple(entry["shape"]),
            TYPES.get(entry["dtype"]) or entry["dtype"],
            8 + length + entry["data_offsets"][0],
        )
        for name, entry in known.items()
    }
    return Header(metadata, arrays)


def read_array(path: Path, stored: Stored) -> np.ndarray:
    """One array of a file, in its own type and memory.

    Raises:
        InputError: if numpy has no such type, or the file is shorter than when its
            header was read.
    """
    if stored.dtype not in TYPES.values():
        raise InputError(
            f"read_array: need a type in {sorted(TYPES)}, got {stored.dtype!r} in "
            f"path={str(path)!r}. Convert it to one of them."
        )
    count = math.prod(stored.shape)
    values = np.fromfile(path, stored.dtype, count, offset=stored.start)
    if values.size != count:
        raise InputError(
            f"read_array: need {count} values at byte {stored.start}, got "
            f"{values.size} in path={str(path)!r}. It was changed meanwhile."
        )
    return values.reshape(stored.shape)


def _first(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _refusal(owner: str, path: Path, reason: str) -> InputError:
    reason = " ".join(reason.split())[:160].rstrip(".")
    return InputError(
        f"{owner}: need a safetensors file, got path={str(path)!r}. {reason}. "
        "Copy it again, or name the right file."
    )


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the pairs.

    Raises:
        InputError: if two have one name: JSON would keep the last without a word.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in found if names.count(name) > 1)
        raise InputError(f"Its header says {twin!r} twice")
    return found
