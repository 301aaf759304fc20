"""One small data set in memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxguide.data.identity import checksum
from jaxguide.data.source import Batch, Source
from jaxguide.errors import InputError, NonFiniteError

CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with one class each, held in memory.

    Args:
        images: uint8 [N, H, W, C], values 0..255.
        labels: int32 [N], values 0 .. `num_classes` - 1.
        class_names: one name per class; the index is the label.

    Raises:
        InputError: if shapes, dtypes or label values do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        shape, dtype = self.images.shape, self.images.dtype
        if len(shape) != 4 or dtype != np.uint8:
            raise InputError(
                f"Dataset: need images uint8 [N, H, W, C], got images={dtype} "
                f"{list(shape)!r}. Convert to 0..255 and add the channel axis."
            )
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError(
                f"Dataset: need integer labels, got labels={self.labels.dtype}. "
                "Number the classes from 0."
            )
        if self.labels.shape != shape[:1] or not shape[0]:
            raise InputError(
                f"Dataset: need one label per image and at least one image, got "
                f"labels={list(self.labels.shape)!r} for {shape[0]} images. "
                "Pass labels [N]."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise InputError(
                f"Dataset: need 0 <= labels < {len(self.class_names)}, got "
                f"labels={low}..{high}. Give one class name per label."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes; also the label that stands for "no class"."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def is_latent(self) -> bool:
        """False."""
        return False

    @property
    def identity(self) -> str:
        """Of all pixels and labels; see `data.identity`."""
        return checksum(self.images, self.labels)

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """See `Source.read`; nothing but the order is random."""
        del draws
        images = self.images[picked]
        images[flip] = images[flip, :, ::-1]
        return to_unit(images), self.labels[picked]


def to_unit(images: np.ndarray) -> np.ndarray:
    """Maps uint8 0..255 to float32 in [-1, 1]."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Maps [-1, 1] back to uint8 0..255; values outside are clipped.

    Raises:
        NonFiniteError: if a value is NaN, which is no gray level.
    """
    if np.isnan(images).any():
        raise NonFiniteError(
            "to_uint8: need images without NaN, got some. Check what made them."
        )
    scaled = (np.asarray(images, np.float32) + 1) * 127.5
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def in_memory(source: Source) -> Dataset:
    """All images of a source, in memory as uint8.

    Raises:
        InputError: if the source holds latents.
    """
    if source.is_latent:
        raise InputError(
            "in_memory: need a source of images, got is_latent=True. "
            "Read latents where they are used."
        )
    images = np.empty((len(source), *source.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), CHUNK):
        picked = np.arange(start, min(start + CHUNK, len(source)))
        none = np.zeros(len(picked), np.uint64)
        x0, labels[picked] = source.read(picked, flip=none.astype(bool), draws=none)
        images[picked] = to_uint8(x0)
    return Dataset(images, labels, source.class_names)
