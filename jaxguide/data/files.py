"""Images from files of the user: `.npz` archives and folders of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jaxguide.data.dataset import Dataset

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_npz(path: str | Path, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads named arrays from an `.npz` file; object arrays are refused.

    Raises:
        ValueError: if the file is missing or lacks one of `fields`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(
            f"read_npz: need an existing .npz file, got path={str(path)!r}. "
            "Check the path."
        )
    with np.load(path, allow_pickle=False) as archive:
        missing = [field for field in fields if field not in archive.files]
        if missing:
            raise ValueError(
                f"read_npz: need the fields {list(fields)!r}, got "
                f"fields={archive.files!r} in {path.name}. Add {missing[0]!r}."
            )
        return {field: archive[field] for field in fields}


def npz(path: str | Path, *, images: str = "x", labels: str = "y") -> Dataset:
    """Any `.npz` with uint8 images [N, H, W(, C)] and integer labels [N].

    Args:
        path: the archive.
        images: name of its image field.
        labels: name of its label field. Classes are named by their number.

    Raises:
        ValueError: if the file, a field, a shape or a dtype is wrong.
    """
    fields = read_npz(path, (images, labels))
    x, y = fields[images], fields[labels]
    x = x[..., None] if x.ndim == 3 else x
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"npz: need integer labels, got {labels}={y.dtype} in {Path(path).name}. "
            "Store class indices."
        )
    names = tuple(str(label) for label in range(int(y.max(initial=0)) + 1))
    return Dataset(x, y.astype(np.int32), names)


def image_folder(path: str | Path, *, size: int) -> Dataset:
    """A folder with one sub-folder of pictures per class, as RGB squares.

    Args:
        path: the folder; sub-folder names, sorted, become the class names.
        size: edge in pixels; pictures are cropped to the centre square and
            resized by area averaging.

    Raises:
        ValueError: if the folder is missing or holds no picture.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(
            f"image_folder: need an existing folder, got path={str(root)!r}. "
            "Check the path."
        )
    names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    found = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((root / name).iterdir())
        if file.suffix.lower() in PICTURES
    ]
    if not found:
        raise ValueError(
            f"image_folder: need one sub-folder of pictures per class, got "
            f"path={str(root)!r}. Known endings: {', '.join(PICTURES)}."
        )
    images = np.stack([_picture(file, size) for file, _ in found])
    labels = np.array([label for _, label in found], np.int32)
    return Dataset(images, labels, tuple(names))


def _picture(file: Path, size: int) -> np.ndarray:
    with Image.open(file) as picture:
        rgb = picture.convert("RGB")
    edge = min(rgb.size)
    left, top = (rgb.width - edge) // 2, (rgb.height - edge) // 2
    square = rgb.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX))
