"""What one array of a file is, before it is read."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16 and the types of 8 bits)
import numpy as np

# Types whose values are weights as they stand. Whole numbers are not: they are weights
# only with scales, which may lie anywhere.
FLOATS = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)


class Entry(NamedTuple):
    """Shape and type of one array; a type that numpy lacks has the file's own name."""

    shape: tuple[int, ...]
    dtype: str


class File(Protocol):
    """One file of arrays, which are read when asked for.

    Attributes:
        entries: what every array is, by its name.
        nested: names of state dicts in it.
        said: the JSON text of a file of ours; "" in others.
    """

    entries: dict[str, Entry]
    nested: tuple[str, ...]
    said: str

    def get(self, name: str) -> np.ndarray:
        """A copy of one array, in the type as stored."""
        ...


def size_of(entry: Entry) -> int:
    """Bytes of an array."""
    return math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
