"""One safetensors file that says what it is: named arrays and a JSON text.

The arrays stand under dotted names, the text in the metadata. Such a file can be read
without this package, and reading it runs no code. What the text says is held against
the shapes of the arrays, and no NaN is written or read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.models import header
from jaxguide.models.header import Meaning, Shapes
from jaxguide.models.looks import few
from jaxguide.models.safetensors_file import check_regular, read_array, read_header
from jaxguide.models.written import write_arrays
from jaxguide.runtime.devices import DTYPES


def write(
    owner: str,
    path: str | Path,
    about: dict,
    params: Any,
    dtype: str,
    *,
    unset: Mapping[str, int] = {},  # noqa: B006
) -> None:
    """Writes parameters and what they are to one file.

    Args:
        owner: the public name that an error begins with.
        path: of the file; its folder is made if missing.
        about: JSON-able facts, "format" among them.
        params: nested dict of arrays.
        dtype: storage type of the parameters, one of `DTYPES`.
        unset: rows at the end of an array that may be NaN, by its dotted name.

    Raises:
        InputError: if `dtype` is unknown.
        NonFiniteError: if a value is NaN or infinite, or too large for `dtype`.
        UnwritableError: if the file cannot be written.
    """
    if dtype not in DTYPES:
        raise InputError(
            f"{owner}: need dtype in {DTYPES}, got dtype={dtype!r}. "
            "float16 suits trained weights."
        )
    flat = traverse_util.flatten_dict(params, sep=".")
    stored = {}
    for name, leaf in flat.items():
        with np.errstate(over="ignore"):  # it is named below
            # No copy where nothing changes: large networks fill the memory.
            stored[name] = np.asarray(leaf).astype(dtype, order="C", copy=False)
        check_finite(owner, path, name, stored[name], unset.get(name, 0))
    write_arrays(owner, Path(path), stored, {"jaxguide": json.dumps(about)})


def read(
    owner: str,
    path: str | Path,
    format: str,
    writer: str,
    understand: Callable[[dict[str, Any]], Meaning],
    dtype: str = "float32",
    place: Callable[[str, np.ndarray], Any] = lambda name, value: jnp.asarray(value),
) -> tuple[Any, dict[str, Any]]:
    """What `write` wrote; parameters come back as `dtype`.

    Args:
        owner: the public name that an error begins with.
        path: of the file.
        format: what the file must say it is.
        writer: the function that writes such files, for the error.
        understand: the header -> what it means. It may raise InputError.
        dtype: of the parameters; each is converted as soon as it is read.
        place: (dotted name, array in host memory) -> the array on its devices, one
            after another; the host holds one array at a time.

    Returns:
        What `understand` made, and the nested parameters.

    Raises:
        InputError: if the file is missing, damaged or of another format, or its header
            and its arrays contradict each other; all before an array is read.
        NonFiniteError: if a value is NaN or infinite.
    """
    path = Path(path)
    check_regular(owner, path)
    header.check_no_pickle(owner, path)
    metadata, stored = read_header(owner, path)
    about = header.parsed(owner, path, metadata)
    if about.get("format") != format:
        raise header.foreign(
            owner, path, about.get("format"), format, writer, set(stored)
        )
    try:
        meaning = understand(about)
    except InputError as error:
        raise InputError(
            f"{owner}: need a sound header, got path={str(path)!r}, where {error}"
        ) from error
    shapes = {name: array.shape for name, array in stored.items()}
    header.check_shown(owner, path, meaning.shown(shapes))
    check_shapes(owner, path, shapes, meaning.wanted(shapes), "Write the file anew.")
    other = [f"{n} {a.dtype}" for n, a in stored.items() if a.dtype not in DTYPES]
    if other:
        raise InputError(
            f"{owner}: need arrays of {', '.join(DTYPES)}, got path={str(path)!r} with "
            f"{few(other)}. Write it with {writer}."
        )
    flat, kind = {}, jnp.dtype(dtype)
    for name, array in stored.items():
        value = read_array(path, array).astype(kind, copy=False)
        check_finite(owner, path, name, value, meaning.unset.get(name, 0))
        flat[name] = place(name, value)
    return meaning.made, traverse_util.unflatten_dict(flat, sep=".")


def check_shapes(
    owner: str, path: Path, actual: Shapes, wanted: Shapes, advice: str
) -> None:
    """Raises InputError unless the arrays are those that are wanted.

    One line has all that is missing, extra or of another shape; the first few of each
    kind where they are many.
    """
    other = [
        f"{name} {list(actual[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in actual and tuple(actual[name]) != tuple(shape)
    ]
    differences = {
        "missing": [name for name in wanted if name not in actual],
        "extra": [name for name in actual if name not in wanted],
        "of another shape": other,
    }
    faults = [f"{len(f)} {kind} ({few(f)})" for kind, f in differences.items() if f]
    if faults:
        raise InputError(
            f"{owner}: need {len(wanted)} arrays of this layout, got "
            f"path={str(path)!r} with {'; '.join(faults)}. "
            f"{advice}"
        )


def check_finite(
    owner: str, path: str | Path, name: str, array: np.ndarray, unset: int = 0
) -> None:
    """Refuses an array with NaN or infinite values; one pass over it.

    Args:
        owner: the public name that an error begins with.
        path: of its file.
        name: of the array.
        array: of floating point.
        unset: rows at its end that may be NaN.

    Raises:
        NonFiniteError: names the array and how many values are not finite.
    """
    whole = array[: len(array) - unset] if unset else array
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum takes a fifth of the time of `isfinite`, and is finite if all values
        # are and it does not overflow.
        if np.isfinite(whole.sum(dtype=np.float32)):
            return
        count = whole.size - int(np.isfinite(whole).sum())
    if count:
        raise NonFiniteError(
            f"{owner}: need finite weights, got {count} of {whole.size} values "
            f"that are NaN, infinite or too large for {array.dtype}, in {name} of "
            f"path={str(path)!r}. Use another file, or a wider dtype."
        )
