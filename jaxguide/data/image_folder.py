"""Folders of pictures, decoded when they are asked for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from jaxguide.data.crop import centre_crop
from jaxguide.data.dataset import to_unit
from jaxguide.data.folders import BESIDE, NESTED, class_folders, pictures_in, tell
from jaxguide.data.parallel import each
from jaxguide.data.pictures import PICTURES, VERSION, read_picture
from jaxguide.data.source import Batch
from jaxguide.errors import InputError
from jaxguide.runtime.files import stamp


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Pictures in files, as RGB squares; `image_folder` makes one.

    Args:
        files: path of every picture.
        labels: int32 [N].
        class_names: one name per class.
        size: edge in pixels after `centre_crop`.
        root: the folder that they are in.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    size: int
    root: str = ""

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

    @property
    def identity(self) -> str:
        """Of names, sizes and times of the files; see `data.identity`."""
        return f"{VERSION} {stamp(self.files, self.root or None)}"

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

    Hidden and system folders are no classes, hidden files no pictures. Whatever else
    is passed over (other files, pictures further down) is counted in one line.

    Args:
        path: the folder; sub-folder names, sorted, become the class names.
        size: edge in pixels; see `centre_crop`.

    Raises:
        InputError: if the folder is missing, a class has no picture, or `size` is not
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
    passed: Counter[str] = Counter()
    names = tuple(class_folders(root, passed))
    by_class = [pictures_in(str(root / name), passed) for name in names]
    files = tuple(file for inside in by_class for file in inside)
    if not files:
        raise InputError(
            f"image_folder: need one sub-folder of pictures per class, got "
            f"path={str(root)!r}{_hint(passed)}. Known endings: {', '.join(PICTURES)}."
        )
    empty = [name for name, inside in zip(names, by_class, strict=True) if not inside]
    if empty:
        raise InputError(
            f"image_folder: need pictures in every class folder, got none in "
            f"{', '.join(map(repr, empty[:5]))}{', ...' if empty[5:] else ''} of "
            f"path={str(root)!r}{_hint(passed)}. Remove or fill these folders: each "
            "would be a class."
        )
    tell("image_folder", root, passed)
    counts = [len(inside) for inside in by_class]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return ImageFolder(files, labels, names, size, str(root))


def _hint(passed: Counter[str]) -> str:
    further = f" with {passed[NESTED]} {NESTED}" if passed[NESTED] else ""
    return further or (f" with {passed[BESIDE]} {BESIDE}" if passed[BESIDE] else "")


def _decode(file: str, size: int) -> np.ndarray:
    picture = read_picture(file, "image_folder")
    try:
        return centre_crop(picture, size)
    except InputError as error:
        raise InputError(f"{error} It is file={file!r}.") from error
