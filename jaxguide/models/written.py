"""Files of arrays and texts that are there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jaxguide.errors import UnwritableError
from jaxguide.runtime import files


def write_arrays(
    owner: str,
    path: Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
    *,
    save: Callable[[Path, dict[str, np.ndarray]], None] | None = None,
) -> None:
    """Writes named arrays as safetensors, or as `save` does.

    A reader, and a run that is killed, never see half a file. Its rights are those of
    any new file (the umask's), also where the library that writes it asks for less.

    Args:
        owner: the public name that an error begins with.
        path: of the file; its folder is made if missing.
        arrays: contiguous, by name.
        metadata: texts by name, for safetensors.
        save: `(path, arrays)`, writes another format.

    Raises:
        UnwritableError: if the file cannot be written.
    """
    with _replacing(owner, path) as part:
        if save is None:
            save_file(arrays, str(part), metadata=metadata)
        else:
            save(part, arrays)


def write_text(owner: str, path: Path, text: str) -> None:
    """Writes a text file whole or not at all; `write_arrays` has the errors."""
    with _replacing(owner, path) as part:
        part.write_text(f"{text}\n", encoding="utf-8")


def _replacing(owner: str, path: Path) -> contextlib.AbstractContextManager[Path]:
    if path.is_dir():
        raise UnwritableError(
            f"{owner}: need the name of a file, got path={str(path)!r}: a folder is in "
            "the way. Use another name."
        )
    return files.replacing(path, owner)
