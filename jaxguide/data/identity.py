"""What a data set is, as a text: other examples, another text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.data.image_folder import ImageFolder
from jaxguide.data.latents import LatentCache
from jaxguide.data.made import MadeLatents
from jaxguide.data.pictures import VERSION
from jaxguide.data.source import Source
from jaxguide.data.tfds_source import TfdsSource
from jaxguide.runtime.files import stamp

CHUNK = 256


def identity(source: Source) -> str:
    """A text that changes when the examples or the labels of a source do.

    Sets in files are known by names, sizes and times of these, read from the file
    system; sets in memory by all their pixels. Any other source is read once.

    Args:
        source: any.
    """
    total = hashlib.sha256()
    facts = [len(source), list(source.image_shape), list(source.class_names)]
    total.update(repr(facts).encode())
    if isinstance(source, ImageFolder):
        total.update(f"{VERSION} {stamp(source.files, source.root)}".encode())
    elif isinstance(source, TfdsSource) and source.folder:
        files = sorted(
            path for path in Path(source.folder).rglob("*") if path.is_file()
        )
        split = str(getattr(source.records, "split", ""))
        total.update(f"{VERSION} {split} {stamp(files, source.folder)}".encode())
    elif isinstance(source, LatentCache):
        total.update(source.checksum.encode())
    elif isinstance(source, Dataset):
        _add(total, source.images, source.labels)
    elif isinstance(source, MadeLatents):
        _add(total, source.means)
    else:
        _add_all(total, source)
    return total.hexdigest()[:32]


def _add(total: hashlib._Hash, *arrays: np.ndarray) -> None:
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)


def _add_all(total: hashlib._Hash, source: Source) -> None:
    for start in range(0, len(source), CHUNK):
        picked = np.arange(start, min(start + CHUNK, len(source)))
        zeros = np.zeros(len(picked), np.uint64)
        _add(total, *source.read(picked, flip=zeros.astype(bool), draws=zeros))
