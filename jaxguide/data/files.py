"""Images from `.npz` files of the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.errors import InputError


def read_npz(path: str | Path, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads named arrays from an `.npz` file; object arrays are refused.

    Raises:
        InputError: if the file is missing or lacks one of `fields`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"read_npz: need an existing .npz file, got path={str(path)!r}. "
            "Check the path."
        )
    with np.load(path, allow_pickle=False) as archive:
        missing = [field for field in fields if field not in archive.files]
        if missing:
            raise InputError(
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
        InputError: if the file, a field, a shape or a dtype is wrong.
    """
    fields = read_npz(path, (images, labels))
    x, y = fields[images], fields[labels]
    x = x[..., None] if x.ndim == 3 else x
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"npz: need integer labels, got {labels}={y.dtype} in {Path(path).name}. "
            "Store class indices."
        )
    names = tuple(str(label) for label in range(int(y.max(initial=0)) + 1))
    return Dataset(x, y.astype(np.int32), names)
