"""One small in-memory data set, and the order in which its examples are seen.

The order is a pure function of `(seed, step)`: a run that is stopped and resumed
at step 700 sees exactly the examples that an unbroken run sees from step 700 on,
and nothing about the data has to be stored in a checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with one class each, held in memory.

    Args:
        images: uint8 [N, H, W, C], values 0..255.
        labels: int32 [N], values 0 .. `num_classes` - 1.
        class_names: one name per class; the index is the label.

    Raises:
        ValueError: if shapes, dtypes or label values do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        shape, dtype = self.images.shape, self.images.dtype
        if len(shape) != 4 or dtype != np.uint8:
            raise ValueError(
                f"Dataset: need images uint8 [N, H, W, C], got images={dtype} "
                f"{list(shape)!r}. Convert to 0..255 and add the channel axis."
            )
        if self.labels.shape != shape[:1] or not shape[0]:
            raise ValueError(
                f"Dataset: need one label per image and at least one image, got "
                f"labels={list(self.labels.shape)!r} for {shape[0]} images. "
                "Pass labels [N]."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise ValueError(
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


def to_unit(images: np.ndarray) -> np.ndarray:
    """Maps uint8 0..255 to float32 in [-1, 1]."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Maps [-1, 1] back to uint8 0..255; values outside are clipped."""
    scaled = (np.asarray(images, np.float32) + 1) * 127.5
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def indices(size: int, step: int, *, batch_size: int, seed: int) -> np.ndarray:
    """Examples of one training step: shuffled anew in every epoch, none left out.

    Args:
        size: number of examples N.
        step: training step, counted from 0.
        batch_size: examples per step; may exceed N.
        seed: of the shuffle.

    Returns:
        int64 [batch_size], a pure function of the arguments.

    >>> first_epoch = [indices(6, step, batch_size=3, seed=0) for step in (0, 1)]
    >>> sorted(np.concatenate(first_epoch).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    position = step * batch_size + np.arange(batch_size)
    epoch, offset = np.divmod(position, size)
    picked = np.empty(batch_size, np.int64)
    for one in np.unique(epoch):
        here = epoch == one
        picked[here] = _permutation(size, seed, int(one))[offset[here]]
    return picked


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


def batch(
    dataset: Dataset, step: int, *, batch_size: int, seed: int, flip: bool = False
) -> Batch:
    """The examples of one training step.

    Args:
        dataset: where they come from.
        step: training step, counted from 0.
        batch_size: number of examples B.
        seed: of the shuffle and of the flips.
        flip: mirror each image left to right with probability one half.

    Returns:
        `(x0, label)`: float32 [B, H, W, C] in [-1, 1] and int32 [B]; a pure
        function of the arguments.
    """
    picked = indices(len(dataset), step, batch_size=batch_size, seed=seed)
    images = dataset.images[picked]
    if flip:
        mirrored = np.random.default_rng([seed, step, 1]).random(batch_size) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
    return to_unit(images), dataset.labels[picked]
