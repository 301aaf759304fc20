"""One safetensors file that says what it is: named arrays and a JSON text.

The arrays stand under dotted names, the text in the metadata. Such a file can be read
without this package, and reading it runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16)
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxguide.errors import InputError, UnwritableError
from jaxguide.runtime import exits

DTYPES = ("float16", "bfloat16", "float32")


def write(owner: str, path: str | Path, about: dict, params: Any, dtype: str) -> None:
    """Writes parameters and what they are to one file.

    Args:
        owner: the public name that an error begins with.
        path: of the file; its folder is made if missing.
        about: JSON-able facts, "format" among them.
        params: nested dict of arrays.
        dtype: storage type of the parameters, one of `DTYPES`.

    Raises:
        InputError: if `dtype` is unknown.
        OSError: if the file cannot be written.
    """
    if dtype not in DTYPES:
        raise InputError(
            f"{owner}: need dtype in {DTYPES}, got dtype={dtype!r}. "
            "float16 suits trained weights."
        )
    flat = traverse_util.flatten_dict(params, sep=".")
    stored = {  # no copy where nothing changes: large networks fill the memory
        name: np.asarray(leaf).astype(dtype, order="C", copy=False)
        for name, leaf in flat.items()
    }
    write_arrays(owner, Path(path), stored, {"jaxguide": json.dumps(about)})


def write_arrays(
    owner: str,
    path: Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
    *,
    save: Callable[[Path, dict[str, np.ndarray]], None] | None = None,
) -> None:
    """Writes named arrays as safetensors, or as `save` does.

    A reader, and a run that is killed, never see half a file.

    Args:
        owner: the public name that an error begins with.
        path: of the file; its folder is made if missing.
        arrays: contiguous, by name.
        metadata: texts by name, for safetensors.
        save: `(path, arrays)`, writes another format.

    Raises:
        OSError: if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    try:
        if save is None:
            save_file(arrays, str(beside), metadata=metadata)
        else:
            save(beside, arrays)
        beside.replace(path)
    except (SafetensorError, RuntimeError, OSError) as error:
        beside.unlink(missing_ok=True)
        reason = exits.why_unwritable(error)
        if reason is None:
            raise
        raise UnwritableError(
            f"{owner}: need a folder that can be written, got path={str(path)!r}: "
            f"{reason}. Make room or use another folder."
        ) from error


def read(
    owner: str, path: str | Path, format: str, writer: str
) -> tuple[dict, dict[str, Any]]:
    """What `write` wrote; parameters come back as float32.

    Args:
        owner: the public name that an error begins with.
        path: of the file.
        format: what the file must say it is.
        writer: the function that writes such files, for the error.

    Returns:
        The facts and the nested parameters.

    Raises:
        InputError: if the file is missing or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{owner}: need an existing file, got path={str(path)!r}. Check the path."
        )
    try:
        with safe_open(str(path), framework="flax") as file:
            about = json.loads((file.metadata() or {}).get("jaxguide", "{}"))
            if about.get("format") != format:
                raise InputError(
                    f"{owner}: need a file of format {format!r}, got "
                    f"format={about.get('format')!r} in {path.name}. "
                    f"Write it with {writer}."
                )
            names = file.keys()
            flat = {name: file.get_tensor(name).astype(np.float32) for name in names}
    except SafetensorError as error:
        raise InputError(
            f"{owner}: need a safetensors file, got path={str(path)!r}. {error}."
        ) from error
    return about, traverse_util.unflatten_dict(flat, sep=".")
