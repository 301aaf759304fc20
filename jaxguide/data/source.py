"""What training reads: examples by number, everything random from given draws."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Batch = tuple[np.ndarray, np.ndarray]


class Source(Protocol):
    """Examples of a data set, read by number.

    A source holds no position and draws nothing itself, so that the same call gives
    the same arrays on every host and in every resumed run. It may have an attribute
    `identity`, a text that changes when the examples do; see `data.identity`.
    """

    def __len__(self) -> int:
        """Number of examples N."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; the index is the label."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes; also the label that stands for "no class"."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every example."""
        ...

    @property
    def is_latent(self) -> bool:
        """Whether the examples are latents, which a picture cannot show as they are."""
        ...

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """Reads some examples.

        Args:
            picked: int64 [n], which ones; may repeat.
            flip: bool [n], mirror the example left to right.
            draws: uint64 [n], one uniform number per example; whatever is random
                about it is a pure function of that number.

        Returns:
            `(x0, label)`: float32 [n, H, W, C], images in [-1, 1], and int32 [n].
        """
        ...
