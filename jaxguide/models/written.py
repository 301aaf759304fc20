"""Files of arrays and texts that are there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxguide.errors import UnwritableError
from jaxguide.runtime import exits


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

    def fill(beside: Path) -> None:
        if save is None:
            save_file(arrays, str(beside), metadata=metadata)
        else:
            save(beside, arrays)

    _write_beside(owner, path, fill)


def write_text(owner: str, path: Path, text: str) -> None:
    """Writes a text file whole or not at all; `write_arrays` has the errors."""
    _write_beside(owner, path, lambda beside: _write_line(beside, text))


def _write_line(path: Path, text: str) -> None:
    path.write_text(f"{text}\n", encoding="utf-8")


def _write_beside(owner: str, path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write a file beside `path`, then puts it there."""
    beside = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(b"")
        rights = beside.stat().st_mode & 0o777
        fill(beside)
        beside.chmod(rights)
        beside.replace(path)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = exits.why_unwritable(error) or _in_the_way(path)
        reason = reason or getattr(error, "strerror", None)
        if reason is None:
            raise
        raise UnwritableError(
            f"{owner}: need a folder that can be written, got path={str(path)!r}: "
            f"{reason}. Make room or use another folder."
        ) from error
    finally:  # also after Ctrl-C
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _in_the_way(path: Path) -> str | None:
    return "a folder is in the way" if path.is_dir() else None
