"""Scikit-learn's handwritten digits, which ship inside its wheel."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.errors import InputError

TEST_EVERY = 6


def digits(*, split: str = "train") -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels; no download.

    Args:
        split: "train" (1,498 images) or "test" (every sixth image, 299).

    Returns:
        A `Dataset` [N, 8, 8, 1] with classes "0" .. "9".

    Raises:
        InputError: if the split is unknown or scikit-learn is missing.
    """
    if split not in ("train", "test"):
        raise InputError(
            f"digits: need split in ('train', 'test'), got split={split!r}. "
            "There is no other part."
        )
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "digits: need scikit-learn, got sklearn=None. pip install scikit-learn."
        ) from error
    loaded: Any = datasets.load_digits()
    is_test = np.arange(len(loaded.target)) % TEST_EVERY == TEST_EVERY - 1
    picked = is_test if split == "test" else ~is_test
    images = np.rint(loaded.images[picked] * (255 / 16)).astype(np.uint8)[..., None]
    labels = loaded.target[picked].astype(np.int32)
    return Dataset(images, labels, tuple("0123456789"))
