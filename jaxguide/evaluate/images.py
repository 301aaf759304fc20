"""Images to be evaluated, by number, wherever they lie; few of them are in memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxguide import data
from jaxguide.data.folders import pictures_below, tell
from jaxguide.data.parallel import each
from jaxguide.data.pictures import PICTURES, VERSION, read_picture
from jaxguide.errors import InputError
from jaxguide.evaluate.compressed import open_array
from jaxguide.runtime import shards
from jaxguide.runtime.files import stamp
from jaxguide.runtime.npz import Npz
from jaxguide.sample import sets

Shape = tuple[int, int, int]


class Images(Protocol):
    """N images of one size."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    @property
    def shape(self) -> Shape:
        """Height, width and channels."""
        ...

    @property
    def identity(self) -> str:
        """A text that changes when the images do."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Images `start` .. `stop` - 1, uint8 [n, H, W, C]."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """An array of images.

    Args:
        images: uint8 [N, H, W, C].

    Raises:
        InputError: for any other shape or type.
    """

    images: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise InputError(
                "InMemory: need images uint8 [N, H, W, C], got "
                f"images={self.images.dtype} {list(self.images.shape)!r}. "
                "Round to 0..255 and add the channel axis."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        """Height, width and channels."""
        return self.images.shape[1:]

    @property
    def identity(self) -> str:
        """A checksum of all pixels."""
        pixels = np.ascontiguousarray(self.images)
        return f"array {hashlib.sha256(pixels.data).hexdigest()}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Images.read`."""
        return self.images[start:stop]


@dataclasses.dataclass(frozen=True, eq=False)
class InFiles:
    """Arrays of images in one `.npz` or several, read where they lie.

    Args:
        files: the paths, in order.
        arrays: of each, the mapped or compressed images [n, H, W, C].
    """

    files: tuple[Path, ...]
    arrays: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(len(array) for array in self.arrays)

    @property
    def shape(self) -> Shape:
        """Height, width and channels."""
        return self.arrays[0].shape[1:]

    @property
    def identity(self) -> str:
        """Paths, sizes and times of the files."""
        return stamp(self.files)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Images.read`."""
        parts, first = [], 0
        for array in self.arrays:
            begin, end = max(start - first, 0), min(stop - first, len(array))
            if begin < end:
                parts.append(np.asarray(array[begin:end]))
            first += len(array)
        return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class InFolder:
    """Pictures in files, in the order of their names, of one size.

    Args:
        files: the pictures.
        shape: of the first, RGB.
    """

    files: tuple[str, ...]
    shape: Shape

    def __len__(self) -> int:
        return len(self.files)

    @property
    def identity(self) -> str:
        """Paths, sizes and times of the files."""
        return f"pictures-{VERSION} {stamp(self.files)}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Images.read`; decodes in several threads.

        Raises:
            InputError: if a picture has another size or cannot be read.
        """
        return np.stack(each(self._decode, range(start, stop)))

    def _decode(self, number: int) -> np.ndarray:
        pixels = _picture(self.files[number])
        if pixels.shape != self.shape:
            raise InputError(
                f"images: need pictures of one size, got {list(pixels.shape)!r} in "
                f"{self.files[number]!r} beside {list(self.shape)!r}. Resize them "
                "all in one way before."
            )
        return pixels


@dataclasses.dataclass(frozen=True, eq=False)
class InSource:
    """The examples of a data set, as training reads them, without mirroring.

    Args:
        source: of images, not latents.
        name: by which it differs from other sets.
    """

    source: data.Source
    name: str

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> Shape:
        """Height, width and channels."""
        return self.source.image_shape

    @property
    def identity(self) -> str:
        """The name, and what changes when the examples do."""
        return f"{self.name} {data.identity(self.source)}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Images.read`."""
        picked = np.arange(start, stop)
        x0, _ = self.source.read(
            picked,
            flip=np.zeros(len(picked), bool),
            draws=np.zeros(len(picked), np.uint64),
        )
        return data.to_uint8(x0)


@dataclasses.dataclass(frozen=True, eq=False)
class Some:
    """The first images of others.

    Args:
        images: all of them.
        count: how many are taken.
    """

    images: Images
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.images))

    @property
    def shape(self) -> Shape:
        """Height, width and channels."""
        return self.images.shape

    @property
    def identity(self) -> str:
        """That of all; how many are taken stands beside it."""
        return self.images.identity

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `Images.read`."""
        return self.images.read(start, stop)


def open_images(path: str | Path) -> Images:
    """Images of a path.

    Args:
        path: an `.npz` with `arr_0` uint8 [N, H, W, C] (ADM's format) or `images`; a
            folder that jaxguide wrote samples to; or a folder of pictures, with
            sub-folders or without.

    Raises:
        InputError: if there are no images.
    """
    path = Path(path).expanduser()
    if path.is_dir() and (path / shards.PLAN).is_file():
        return _sample_set(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".npz" and path.is_file():
        return _npz([path], ("arr_0", "images", "x"))
    raise InputError(
        "images: need an .npz or a folder of pictures or samples, got "
        f"path={str(path)!r}. Check the path."
    )


def _sample_set(path: Path) -> Images:
    _, files = shards.read_manifest(path, sets.KIND)
    return _npz([path / facts["file"] for facts in files], ("images",))


def _npz(files: Sequence[Path], fields: Sequence[str]) -> Images:
    arrays = tuple(_array(file, fields) for file in files)
    for file, array in zip(files, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise InputError(
                f"images: need images of one size, got {list(array.shape[1:])!r} in "
                f"path={str(file)!r} beside {list(arrays[0].shape[1:])!r}. Write the "
                "set again."
            )
    return InFiles(tuple(files), arrays)


def _array(path: Path, fields: Sequence[str]) -> Any:
    """The first of the fields that the file has."""
    file = Npz(path, "images")
    field = file.first(fields)
    header = file.header(field)
    if len(header.shape) != 4 or header.dtype != np.uint8 or 0 in header.shape:
        raise InputError(
            f"images: need uint8 [N, H, W, C] with at least one image, got "
            f"{header.dtype} {list(header.shape)!r} in path={str(path)!r}. Round to "
            "0..255 first."
        )
    return open_array(file, field)


def _folder(path: Path) -> Images:
    passed: Counter[str] = Counter()
    files = tuple(pictures_below(path, passed))
    if not files:
        raise InputError(
            f"images: need pictures in the folder, got path={str(path)!r}. "
            f"Known endings: {', '.join(PICTURES)}."
        )
    tell("images", path, passed)
    return InFolder(files, _picture(files[0]).shape)


def _picture(file: str) -> np.ndarray:
    return np.asarray(read_picture(file, "images"))
