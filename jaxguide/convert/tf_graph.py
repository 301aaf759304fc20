"""Constants of a frozen TensorFlow graph (`.pb`), read without TensorFlow.

A graph is a message of protocol buffers: numbered fields, each a number or a run of
bytes that may be a message again. Only constants are looked at; nothing is run.

Source: the messages GraphDef, NodeDef, AttrValue, TensorProto and TensorShapeProto of
    TensorFlow, and the wire format of protocol buffers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxguide.errors import InputError

DT_FLOAT = 1
NOTHING = memoryview(b"")
# Bytes of a value of fixed width, by its type on the wire.
WIDTHS = {1: 8, 5: 4}


class Constant(NamedTuple):
    """One array: its shape, and its bytes in the file."""

    shape: tuple[int, ...]
    content: memoryview


class _Field(NamedTuple):
    """A field of a message: a number, or bytes."""

    key: int
    number: int = 0
    part: memoryview = NOTHING


def read_constants(path: Path) -> dict[str, Constant]:
    """All float32 constants of one axis or more, by the name of their node.

    Raises:
        InputError: if the file is no graph.
    """
    try:
        nodes = _parts(memoryview(path.read_bytes()), 1)
        return dict(filter(None, map(_constant, nodes)))
    except (IndexError, ValueError) as error:
        raise InputError(
            "open_tensors: need a frozen TensorFlow graph, got "
            f"path={str(path)!r}. It ends early or is something else: {error}."
        ) from error


def as_array(constant: Constant) -> np.ndarray:
    """A copy of the values, float32."""
    return np.frombuffer(constant.content, "<f4").reshape(constant.shape).copy()


def _constant(node: memoryview) -> tuple[str, Constant] | None:
    """Name and array of a node, if it is a float32 constant with axes."""
    if bytes(_part(node, 2)) != b"Const":
        return None
    for attribute in _parts(node, 5):
        if bytes(_part(attribute, 1)) == b"value":
            tensor = _part(_part(attribute, 2), 8)
            sizes = _parts(_part(tensor, 2), 2)
            shape = tuple(sum(_numbers(size, 1)) for size in sizes)
            # `tensor_content`, or `float_val` as small constants are written. A list
            # shorter than the shape (one value for all) is passed over.
            content = _part(tensor, 4) or _part(tensor, 5)
            whole = len(content) == 4 * math.prod(shape)
            if _numbers(tensor, 1) == [DT_FLOAT] and shape and whole:
                return bytes(_part(node, 1)).decode(), Constant(shape, content)
    return None


def _parts(message: memoryview, key: int) -> list[memoryview]:
    """The bytes of every field of this number."""
    return [field.part for field in _fields(message) if field.key == key]


def _part(message: memoryview, key: int) -> memoryview:
    """The bytes of the last field of this number; none where there is none."""
    return next(reversed(_parts(message, key)), NOTHING)


def _numbers(message: memoryview, key: int) -> list[int]:
    return [field.number for field in _fields(message) if field.key == key]


def _fields(message: memoryview) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        key, kind = tag >> 3, tag & 7
        if kind == 0:
            number, place = _varint(message, place)
            yield _Field(key, number)
            continue
        if kind != 2 and kind not in WIDTHS:
            raise InputError(f"field {key} is of type {kind}")
        if kind == 2:
            size, place = _varint(message, place)
        else:
            size = WIDTHS[kind]
        if place + size > len(message):
            raise InputError(f"field {key} has {size} bytes")
        yield _Field(key, part=message[place : place + size])
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
