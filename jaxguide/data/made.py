"""Made latents, for runs where the real ones are not available."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxguide.data.identity import checksum
from jaxguide.data.noise import normal
from jaxguide.data.source import Batch
from jaxguide.errors import InputError

SPREAD = 0.5**0.5


@dataclasses.dataclass(frozen=True)
class MadeLatents:
    """Gaussian latents with a mean for every class; `made_latents` makes one.

    Args:
        count: number of examples; example i has label i mod `num_classes`.
        means: float32 [num_classes, h, w, c].
    """

    count: int
    means: np.ndarray

    def __len__(self) -> int:
        return self.count

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.means)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Numbers."""
        return tuple(str(label) for label in range(self.num_classes))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.means.shape
        return height, width, channels

    @property
    def is_latent(self) -> bool:
        """True."""
        return True

    @property
    def identity(self) -> str:
        """Of the means; see `data.identity`."""
        return checksum(self.means)

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """See `Source.read`; a fresh draw around the mean of the class."""
        label = (picked % self.num_classes).astype(np.int32)
        means = self.means[label]
        means[flip] = means[flip, :, ::-1]
        return means + np.float32(SPREAD) * normal(draws, self.image_shape), label


def made_latents(
    *,
    count: int = 50_000,
    shape: tuple[int, int, int] = (32, 32, 4),
    classes: int = 1000,
    seed: int = 0,
) -> MadeLatents:
    """Latents that no encoder made: a test of training without a data set.

        x0 = sqrt(1/2) mean[label] + sqrt(1/2) noise

    Means and noise are standard normal, so that x0 has unit variance.

    Args:
        count: number of examples, >= 1.
        shape: height, width and channels.
        classes: number of classes, >= 1.
        seed: of the means.

    Raises:
        InputError: if a number is not positive.
    """
    if min(count, classes, *shape) < 1:
        raise InputError(
            "made_latents: need count, classes and shape >= 1, got "
            f"count={count!r}, classes={classes!r}, shape={shape!r}. "
            "Use positive numbers."
        )
    drawn = np.random.default_rng([seed, 0]).standard_normal(
        (classes, *shape), np.float32
    )
    return MadeLatents(count, np.float32(SPREAD) * drawn)
