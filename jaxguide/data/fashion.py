"""Fashion-MNIST: from its four idx files where they are, else by TFDS."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.data.tfds_source import tfds_images
from jaxguide.errors import InputError

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
FOLDER_VARIABLE = "JAXGUIDE_FASHION_MNIST"
USUAL_FOLDERS = (
    "/usr/share/datasets/fashion-mnist",  # Debian package dataset-fashion-mnist
    "~/.cache/fashion-mnist",
    "~/data/fashion-mnist",
    "data/fashion-mnist",
)
LARGEST = 1 << 30  # bytes of an idx file; the largest of MNIST's kind has 47 MB
PREFIX = {"train": "train", "test": "t10k"}


def fashion_mnist(*, split: str = "train", folder: str = "") -> Dataset:
    """70,000 pictures of clothes, 28 x 28, ten classes (MIT licence).

    Looks for the idx files (`train-images-idx3-ubyte.gz`, ...) in `folder`, or in
    the folder that the variable JAXGUIDE_FASHION_MNIST names, or in
    `USUAL_FOLDERS`; without any of these it takes TensorFlow Datasets, which
    downloads 30 MB once.

    Args:
        split: "train" (60,000) or "test" (10,000).
        folder: where the idx files are; "" searches.

    Returns:
        A `Dataset` [N, 28, 28, 1].

    Raises:
        InputError: if the split is unknown, a named folder lacks the files, or
            TFDS cannot fetch them.
    """
    if split not in PREFIX:
        raise InputError(
            f"fashion_mnist: need split in {tuple(PREFIX)}, got split={split!r}. "
            "There is no other part."
        )
    named = folder or os.environ.get(FOLDER_VARIABLE, "")
    for place in (named,) if named else USUAL_FOLDERS:
        images = _find(place, f"{PREFIX[split]}-images-idx3-ubyte")
        labels = _find(place, f"{PREFIX[split]}-labels-idx1-ubyte")
        if images and labels:
            pixels, classes = read_idx(images), read_idx(labels)
            if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
                raise InputError(
                    "fashion_mnist: need images [N, H, W] and labels [N], got "
                    f"{list(pixels.shape)!r} and {list(classes.shape)!r} in "
                    f"folder={place!r}. Fetch them again."
                )
            return Dataset(pixels[..., None], classes.astype(np.int32), CLASS_NAMES)
    if named:
        raise InputError(
            f"fashion_mnist: need the idx files in a folder, got folder={named!r}. "
            "Leave it empty to search and download."
        )
    dataset = tfds_images("fashion_mnist", split=split)
    return Dataset(dataset.images, dataset.labels, CLASS_NAMES)


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one uint8 array in MNIST's idx format, gzipped or not.

    Raises:
        InputError: if the file is not such an array.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read(LARGEST)
    except (OSError, EOFError, zlib.error):  # cut, or no gzip
        content = b""
    rank = content[3] if content[:3] == b"\0\0\x08" and len(content) > 4 else 0
    start = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    values = np.frombuffer(content[start:], np.uint8)
    if not rank or values.size != math.prod(shape):
        raise InputError(
            f"read_idx: need a whole uint8 idx file, got path={str(path)!r}. "
            "Fetch it again."
        )
    return values.reshape(shape)


def _find(folder: str, name: str) -> Path | None:
    """The file `name`, gzipped or not, in `folder`."""
    places = [Path(folder).expanduser() / file for file in (name, f"{name}.gz")]
    return next((place for place in places if place.is_file()), None)
