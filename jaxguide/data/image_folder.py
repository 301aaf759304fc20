"""Folders of pictures, decoded when they are asked for."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from PIL import Image

from jaxguide.data.crop import centre_crop
from jaxguide.data.dataset import to_unit
from jaxguide.data.parallel import each
from jaxguide.data.source import Batch
from jaxguide.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Pictures in files, as RGB squares; `image_folder` makes one.

    Args:
        files: path of every picture.
        labels: int32 [N].
        class_names: one name per class.
        size: edge in pixels after `centre_crop`.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and 3."""
        return self.size, self.size, 3

    @property
    def is_latent(self) -> bool:
        """False."""
        return False

    def read(self, picked: np.ndarray, *, flip: np.ndarray, draws: np.ndarray) -> Batch:
        """See `Source.read`; decodes in several threads.

        Raises:
            InputError: if a file is no readable picture.
        """
        del draws
        images = np.stack(each(lambda i: _decode(self.files[i], self.size), picked))
        images[flip] = images[flip, :, ::-1]
        return to_unit(images), self.labels[picked]


def image_folder(path: str | Path, *, size: int) -> ImageFolder:
    """A folder with one sub-folder of pictures per class.

    Args:
        path: the folder; sub-folder names, sorted, become the class names.
        size: edge in pixels; see `centre_crop`.

    Raises:
        InputError: if the folder is missing or holds no picture, or `size` is not
            positive.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(
            f"image_folder: need an existing folder, got path={str(root)!r}. "
            "Check the path."
        )
    if size < 1:
        raise InputError(
            f"image_folder: need size >= 1, got size={size!r}. "
            "Set the edge in pixels, for example size=256."
        )
    names = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    by_class = [_pictures(root / name) for name in names]
    files = tuple(file for inside in by_class for file in inside)
    if not files:
        raise InputError(
            f"image_folder: need one sub-folder of pictures per class, got "
            f"path={str(root)!r}. Known endings: {', '.join(PICTURES)}."
        )
    counts = [len(inside) for inside in by_class]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return ImageFolder(files, labels, names, size)


def _pictures(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.lower().endswith(PICTURES))


def _decode(file: str, size: int) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            rgb = picture.convert("RGB")
    # Pillow's decoders raise these three for broken files.
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"image_folder: need a readable picture, got file={file!r}. "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    return centre_crop(rgb, size)
