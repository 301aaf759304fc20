"""Any image classification set of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxguide.data.dataset import Dataset


def tfds_images(
    name: str, *, split: str = "train", data_dir: str | None = None
) -> Dataset:
    """Reads a whole split into memory through `tfds.data_source`.

    Meant for sets that fit: 60,000 images of 28 x 28 are 47 MB. All images must have
    one size.

    Args:
        name: as in the TFDS catalogue; its features need `image` and `label`.
        split: any TFDS split, also slices such as "train[:10%]".
        data_dir: where TFDS keeps prepared data; None is its default.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: if TFDS lacks the set, cannot fetch it, or its features differ.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
        source = builder.as_data_source(split=split)
    # TFDS raises many types (network, catalogue, format); all mean "not available".
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"tfds_images: need a data set that TFDS can provide, got name={name!r}, "
            f"split={split!r}. {type(error).__name__}: {reason}"
        ) from error
    features = builder.info.features or {}
    if "image" not in features or "label" not in features:
        raise ValueError(
            "tfds_images: need the features 'image' and 'label', got "
            f"features={sorted(features)!r} in {name}. Choose a classification set."
        )
    records = [(record["image"], record["label"]) for record in source]
    images = np.stack([image for image, _ in records])
    labels = np.array([label for _, label in records], np.int32)
    return Dataset(images, labels, tuple(features["label"].names))
