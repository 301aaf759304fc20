"""Any image classification set of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxguide.data.crop import centre_crop
from jaxguide.data.dataset import Dataset, in_memory, to_unit
from jaxguide.data.parallel import each
from jaxguide.data.pictures import VERSION, eight_bits, on_white
from jaxguide.data.source import Batch
from jaxguide.errors import InputError
from jaxguide.runtime.files import stamp

LONGEST_REASON = 400
# Stored channels: gray or RGB, with transparency or without -> channels of an example.
CHANNELS = {1: 1, 2: 1, 3: 3, 4: 3}


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared set, decoded when asked for; `open_tfds` makes one.

    Args:
        records: random access to dicts with `image` and `label`.
        class_names: one name per class.
        image_shape: of every example.
        crop: bring images to that shape by `centre_crop`; else they have it.
        files: those that were prepared.
    """

    records: Any
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    crop: bool
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def is_latent(self) -> bool:
        """False."""
        return False

    @property
    def identity(self) -> str:
        """Of split and files; see `data.identity`."""
        split = str(getattr(self.records, "split", ""))
        return f"{VERSION} {split} {stamp(self.files)}"

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """See `Source.read`; decodes in several threads."""
        del draws
        examples = each(self._example, picked)
        images = np.stack([image for image, _ in examples])
        images[flip] = images[flip, :, ::-1]
        return to_unit(images), np.array([label for _, label in examples], np.int32)

    def _example(self, index: int) -> tuple[np.ndarray, int]:
        try:
            record = self.records[int(index)]
        except Exception as error:  # of damaged records: TFDS raises many types
            reason = " ".join(str(error).split())[:LONGEST_REASON]
            raise InputError(
                f"open_tfds: need a readable example, got example {index}: "
                f"{type(error).__name__}: {reason}. Prepare the set again."
            ) from error
        label = int(record["label"])
        if not 0 <= label < self.num_classes:
            raise InputError(
                f"open_tfds: need labels in 0..{self.num_classes - 1}, got "
                f"label={label!r} of example {index}. Take a split with labels."
            )
        picture = _picture(record["image"])
        if self.crop:
            image = centre_crop(picture, self.image_shape[0])
        else:
            image = np.asarray(picture)
        return image.reshape(self.image_shape), label


def _picture(image: np.ndarray) -> Image.Image:
    """An image [H, W, 1..4] of 8 or 16 bits as gray or RGB, transparency over white."""
    pixels = eight_bits(image, "open_tfds")
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if picture.mode == "LA":
        return on_white(picture).convert("L")
    return on_white(picture) if picture.mode == "RGBA" else picture


def open_tfds(
    name: str, *, split: str = "train", size: int = 0, data_dir: str | None = None
) -> TfdsSource:
    """A split that is read example by example, so that it need not fit into memory.

    A prepared set of format array_record is read as it is, without TensorFlow; others
    are prepared in that format. Preparing "imagenet2012" takes the two archives from
    image-net.org in TFDS's folder downloads/manual, and TensorFlow once.

    Args:
        name: as in the TFDS catalogue; its features need `image` and `label`.
        split: any TFDS split, also slices such as "train[:10%]".
        size: edge in pixels; see `centre_crop`. 0 leaves images as they are stored,
            which must then be of one size.
        data_dir: where TFDS keeps prepared data; None is its default.

    Raises:
        InputError: if TFDS lacks the set or cannot prepare it, its features differ, or
            its images have many sizes and `size` is 0.
    """
    with _available(name, split):
        import tensorflow_datasets as tfds

        builder: Any = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    features = builder.info.features or {}
    if "image" not in features or "label" not in features:
        raise InputError(
            "open_tfds: need the features 'image' and 'label', got "
            f"features={sorted(features)!r} in {name}. Choose a classification set."
        )
    height, width, stored = features["image"].shape
    dtype = np.dtype(features["image"].np_dtype)
    if stored not in CHANNELS or dtype not in (np.uint8, np.uint16, bool):
        raise InputError(
            "open_tfds: need images of 1 to 4 channels of 8 or 16 bits, got "
            f"image={list(features['image'].shape)!r} of {dtype} in {name}. Choose "
            "another configuration of the set."
        )
    if not hasattr(features["label"], "names"):
        raise InputError(
            "open_tfds: need labels that are classes, got "
            f"label={type(features['label']).__name__} in {name}. Choose a "
            "classification set."
        )
    channels = CHANNELS[stored]
    if not size and None in (height, width):
        raise InputError(
            f"open_tfds: need size >= 1 for images of many sizes, got size={size!r} "
            f"for {name}. Set the edge in pixels, for example size=256."
        )
    with _available(name, split):
        builder.download_and_prepare()
        records = builder.as_data_source(split=split)
    shape = (size or height, size or width, channels)
    names = tuple(features["label"].names)
    crop = shape[:2] != (height, width)
    return TfdsSource(records, names, shape, crop, _prepared(builder))


def _prepared(builder: Any) -> tuple[str, ...]:
    """The files of a set: its records and what describes them."""
    folder = Path(builder.data_dir)
    files = filter(Path.is_file, folder.rglob("*")) if folder.is_dir() else ()
    return tuple(sorted(map(str, files)))


def tfds_images(
    name: str, *, split: str = "train", data_dir: str | None = None
) -> Dataset:
    """Reads a whole split into memory; see `open_tfds`.

    Meant for sets that fit: 60,000 images of 28 x 28 are 47 MB. All images must have
    one size.
    """
    return in_memory(open_tfds(name, split=split, data_dir=data_dir))


@contextmanager
def _available(name: str, split: str) -> Iterator[None]:
    try:
        yield
    # TFDS raises many types (network, catalogue, format); all mean "not available".
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise InputError(
            f"open_tfds: need a data set that TFDS can provide, got name={name!r}, "
            f"split={split!r}. {type(error).__name__}: {reason[:LONGEST_REASON]}"
        ) from error
