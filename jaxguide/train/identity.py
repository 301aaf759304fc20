"""What tells one set of examples from another, in a few JSON-able facts."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide import data
from jaxguide.data.dataset import Dataset
from jaxguide.data.image_folder import ImageFolder
from jaxguide.data.latents import LatentCache
from jaxguide.data.tfds_source import TfdsSource

# Of a set that does not fit into memory, so many examples are looked at.
_LOOKED_AT = 256
_SHOWN = 20


def describe(source: data.Source) -> dict[str, Any]:
    """Facts of a data set; equal ones mean the same examples in the same order.

    Of a set in memory all pixels and labels count; of latents the checksums of their
    files; of a folder of pictures all names, sizes and labels, and the content of 256
    files; of any other source 256 examples, spread evenly.
    """
    names = list(source.class_names)
    shown = names if len(names) <= _SHOWN else _digest(json.dumps(names).encode())
    return {
        "examples": len(source),
        "image_shape": list(source.image_shape),
        "num_classes": source.num_classes,
        "class_names": shown,
        "contents": _contents(source),
    }


def _digest(*parts: Any) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _spread(count: int) -> np.ndarray:
    """Numbers of some examples among `count`, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, _LOOKED_AT).round().astype(np.int64))


@functools.singledispatch
def _contents(source: Any) -> str:
    picked = _spread(len(source))
    none = np.zeros(len(picked), np.uint64)
    x0, label = source.read(picked, flip=none.astype(bool), draws=none)
    return _digest(_bytes(x0), _bytes(label))


@_contents.register
def _(source: Dataset) -> str:
    return _digest(_bytes(source.images), _bytes(source.labels))


@_contents.register
def _(source: ImageFolder) -> str:
    # No times of files: a copy on another disk is the same data.
    names = [os.path.join(*Path(file).parts[-2:]) for file in source.files]
    sizes = [os.stat(file).st_size for file in source.files]
    some = (Path(source.files[i]).read_bytes() for i in _spread(len(names)))
    return _digest(_text(names), _text(sizes), _bytes(source.labels), *some)


@_contents.register
def _(source: LatentCache) -> str:
    return _digest(_text([*source.checksums, source.plan.scale, source.plan.shift]))


@_contents.register
def _(source: TfdsSource) -> str:
    # No pixels: decoders of different versions differ in the last bit.
    picked = (source.records[int(i)] for i in _spread(len(source)))
    labels = [int(record["label"]) for record in picked]
    return _digest(_text(labels))


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")


def _text(values: Sequence[Any]) -> bytes:
    return json.dumps(values).encode()
