"""Latents of an autoencoder that were computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguide.data.identity import checksum
from jaxguide.data.latent_plan import KIND, read_plan
from jaxguide.data.latent_shards import open_shards
from jaxguide.data.noise import normal
from jaxguide.data.source import Batch
from jaxguide.errors import InputError
from jaxguide.runtime import shards


class LatentCache:
    """A `Source` of latents, drawn anew from their posterior at every reading.

        x0 = (mean + exp(log_variance / 2) noise - shift) * scale

    The noise is a function of the example's draw alone. A mirrored example is the
    encoding of the mirror image, not the mirrored encoding: encoders are not
    equivariant. Examples are read from where they lie; opening a folder reads its
    manifest and the sizes of its files.

    Args:
        path: folder that `write_latents` filled.
        encoder: name of the encoder that it must come from; "" takes any.

    Attributes:
        plan: what the folder holds, among it encoder, scale and shift.

    Raises:
        InputError: if the manifest or a file is missing or cut short, or another
            encoder made it.

    Source: Rombach et al. 2022, arXiv:2112.10752, first stage with a KL penalty.
    """

    def __init__(self, path: str | Path, *, encoder: str = ""):
        self._folder = Path(path).expanduser()
        self.plan, self._files = read_plan(self._folder)
        if encoder and encoder != self.plan.encoder:
            raise InputError(
                f"LatentCache: need latents of encoder={encoder!r}, got "
                f"encoder={self.plan.encoder!r} in path={str(path)!r}. "
                "Encode the images again, into another folder."
            )
        self._shards = open_shards(self._folder, self.plan)

    def __len__(self) -> int:
        return self.plan.count

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.plan.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.plan.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the latents."""
        height, width, moments = self.plan.shape
        return height, width, moments // 2

    @property
    def is_latent(self) -> bool:
        """True."""
        return True

    @property
    def identity(self) -> str:
        """Of the manifest, with the checksums of the files; see `data.identity`."""
        return checksum(self.plan, self._files)

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """See `Source.read`.

        Raises:
            InputError: if mirror images are wanted that were not encoded.
        """
        if flip.any() and not self.plan.mirrored:
            raise InputError(
                "LatentCache: need encoded mirror images, got flip=True for "
                f"path={str(self._folder)!r}. Encode with mirrored=True, or do not "
                "flip."
            )
        moments, labels = self._shards.read(picked, flip.astype(np.int64))
        mean, log_variance = np.split(moments.astype(np.float32), 2, axis=-1)
        noise = normal(draws, self.image_shape)
        latent = mean + np.exp(log_variance / 2) * noise
        return (latent - np.float32(self.plan.shift)) * np.float32(
            self.plan.scale
        ), labels

    def verify(self) -> None:
        """Reads all files and compares their checksums.

        Raises:
            InputError: if a file was changed.
        """
        shards.check_sums(self._folder, self._files, KIND)
