"""Images from `.npz` files of the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.errors import InputError
from jaxguide.runtime.npz import Npz

# Above the largest sets of images; more would be numbers that are no classes.
MOST_CLASSES = 1_000_000


def npz(path: str | Path, *, images: str = "x", labels: str = "y") -> Dataset:
    """Any `.npz` with uint8 images [N, H, W(, C)] and integer labels [N].

    Args:
        path: the archive.
        images: name of its image field.
        labels: name of its label field, numbers from 0 to `MOST_CLASSES` - 1. Classes
            are named by their number.

    Raises:
        InputError: if the file, a field, a shape, a dtype or a label is wrong.
    """
    file = Npz(path, "npz")
    file.need(images, labels)
    pixels, names = file.header(images), file.header(labels)
    if len(pixels.shape) not in (3, 4) or pixels.dtype != np.uint8:
        raise InputError(
            f"npz: need images uint8 [N, H, W(, C)] of values 0..255, got "
            f"{images}={pixels.dtype} {list(pixels.shape)!r} in path={str(path)!r}. "
            "Scale and round them first."
        )
    if names.shape != pixels.shape[:1] or 0 in pixels.shape:
        raise InputError(
            f"npz: need one label per image and at least one image, got "
            f"{labels}={list(names.shape)!r} for {images}={list(pixels.shape)!r} in "
            f"path={str(path)!r}. Write labels [N]."
        )
    if not np.issubdtype(names.dtype, np.integer):
        raise InputError(
            f"npz: need integer labels, got {labels}={names.dtype} in "
            f"path={str(path)!r}. Store class indices."
        )
    x, y = file.read(images), file.read(labels)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= MOST_CLASSES:
        raise InputError(
            f"npz: need labels in 0..{MOST_CLASSES - 1}, got {labels}={low}..{high} in "
            f"path={str(path)!r}. Number the classes from 0."
        )
    class_names = tuple(str(label) for label in range(high + 1))
    x = x[..., None] if x.ndim == 3 else x
    return Dataset(np.ascontiguousarray(x), y.astype(np.int32), class_names)
