"""One safetensors file that says what it is: named arrays and a JSON text.

The arrays stand under dotted names, the text in the metadata. Such a file can be read
without this package, and reading it runs no code. What the text says is held against
the shapes of the arrays, and no NaN is written or read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxguide.errors import InputError, NonFiniteError, UnwritableError
from jaxguide.models import looks
from jaxguide.models.safetensors_file import check_regular, read_array, read_header
from jaxguide.runtime import exits
from jaxguide.runtime.calls import call

DTYPES = ("float16", "bfloat16", "float32")
SHOWN = 6

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Made = TypeVar("Made")


class Shown(NamedTuple):
    """A field that the shapes of arrays show.

    Attributes:
        field: of the architecture.
        said: its value in the header.
        found: what the arrays say; None if those that show it are missing.
    """

    field: str
    said: Any
    found: Any


class Meaning(NamedTuple):
    """What a header means.

    Attributes:
        made: the object that it describes; the caller's business.
        shown: from the shapes of arrays to the fields that they show.
        wanted: from the names of arrays to the shapes that there should be.
        unset: rows at the end of an array that may be NaN, by its name.
    """

    made: Any
    shown: Callable[[Shapes], list[Shown]]
    wanted: Callable[[Shapes], Shapes]
    unset: Mapping[str, int] = {}


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
        with contextlib.suppress(OSError):
            beside.unlink()
        if reason is None:
            raise
        raise UnwritableError(
            f"{owner}: need a folder that can be written, got path={str(path)!r}: "
            f"{reason}. Make room or use another folder."
        ) from error


def _in_the_way(path: Path) -> str | None:
    return "a folder is in the way" if path.is_dir() else None


def read(
    owner: str,
    path: str | Path,
    format: str,
    writer: str,
    understand: Callable[[dict[str, Any]], Meaning],
) -> tuple[Any, dict[str, Any]]:
    """What `write` wrote; parameters come back as float32.

    Args:
        owner: the public name that an error begins with.
        path: of the file.
        format: what the file must say it is.
        writer: the function that writes such files, for the error.
        understand: the header -> what it means. It may raise InputError.

    Returns:
        What `understand` made, and the nested parameters.

    Raises:
        InputError: if the file is missing, damaged or of another format, or its header
            and its arrays contradict each other; all before an array is read.
        NonFiniteError: if a value is NaN or infinite.
    """
    path = Path(path)
    check_regular(owner, path)
    _check_no_pickle(owner, path)
    metadata, stored = read_header(owner, path)
    about = _about(owner, path, metadata)
    if about.get("format") != format:
        raise _foreign(owner, path, about.get("format"), format, writer, set(stored))
    try:
        meaning = understand(about)
    except InputError as error:
        raise InputError(
            f"{owner}: need a sound header, got path={str(path)!r}, where {error}"
        ) from error
    shapes = {name: array.shape for name, array in stored.items()}
    _check_shown(owner, path, meaning.shown(shapes))
    check_shapes(owner, path, shapes, meaning.wanted(shapes), "Write the file anew.")
    other = [f"{n} {a.dtype}" for n, a in stored.items() if a.dtype not in DTYPES]
    if other:
        raise InputError(
            f"{owner}: need arrays of {', '.join(DTYPES)}, got path={str(path)!r} with "
            f"{few(other)}. Write it with {writer}."
        )
    flat = {}
    for name, array in stored.items():
        value = read_array(path, array).astype(np.float32, copy=False)
        check_finite(owner, path, name, value, meaning.unset.get(name, 0))
        flat[name] = jnp.asarray(value)
    return meaning.made, traverse_util.unflatten_dict(flat, sep=".")


def field(about: Mapping[str, Any], name: str, kind: type[Made], default: Any) -> Made:
    """One field of a header, of the type that it must have.

    Args:
        about: the header, or a part of it.
        name: of the field.
        kind: its type; a float may be written as a whole number.
        default: if it is not there; `...` if it must be.

    Raises:
        InputError: if it is missing or of another type.
    """
    value = about.get(name, default)
    allowed = (int, float) if kind is float else (kind,)
    if type(value) not in allowed:
        shown = "none" if value is ... else repr(value)
        raise InputError(
            f"header: need {name} of type {kind.__name__}, got {name}={shown:.80}. "
            "Write the file anew."
        )
    return kind(value)  # pyright: ignore[reportCallIssue]


def architecture(config: type[Made], about: Mapping[str, Any], name: str) -> Made:
    """The configuration that a part of a header describes.

    Args:
        config: a dataclass that checks its fields.
        about: the header.
        name: of the part: a dict of all fields.

    Raises:
        InputError: if a field is missing, unknown, of another type or out of range.
    """
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in field(about, name, dict, ...).items()
    }
    return call("header", config, fields)


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


def hint(names: Any) -> str:
    """Which published layout names look like, and how it is converted; or ""."""
    formats = looks.published_as(names)
    behind = looks.inside(names)
    if not formats and not behind:
        return ""
    cut = "" if formats else next(iter(behind))
    formats = formats or behind[cut]
    option = f" --option prefix={cut}" if cut else ""
    return (
        f"It looks like a published {' or '.join(formats)}: "
        f"python -m jaxguide.convert --from {formats[0]}{option} FILE OUT."
    )


def few(names: Any) -> str:
    """The first names of many."""
    names = list(names)
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, ..."


def _about(owner: str, path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON text of a file; {} where there is none."""
    try:
        about = json.loads(metadata.get("jaxguide", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{owner}: need JSON in the header, got path={str(path)!r}: {error}. "
            "Write the file anew."
        ) from error
    if not isinstance(about, dict):
        raise InputError(
            f"{owner}: need a dict in the header, got a {type(about).__name__} in "
            f"path={str(path)!r}. Write the file anew."
        )
    return about


def _check_no_pickle(owner: str, path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(4)
    if first.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise InputError(
            f"{owner}: need a safetensors file of ours, got path={str(path)!r}, which "
            "looks like PyTorch's: python -m jaxguide.convert --from FORMAT FILE OUT."
        )


def _foreign(
    owner: str, path: Path, said: Any, format: str, writer: str, names: set[str]
) -> InputError:
    """What to say of a file that `writer` did not write."""
    known = looks.OURS.get(said) if isinstance(said, str) else None
    advice = f"It holds {known}." if known else hint(names)
    return InputError(
        f"{owner}: need a file of format {format!r}, got format={said!r} in "
        f"path={str(path)!r}. {advice or f'Write it with {writer}.'}"
    )


def _check_shown(owner: str, path: Path, shown: list[Shown]) -> None:
    """Raises InputError where the arrays show another architecture than the header."""
    lost = [one.field for one in shown if one.found is None]
    other = [one for one in shown if one.said != one.found and one.found is not None]
    if not lost and not other:
        return
    said = ", ".join(f"{one.field}={one.said!r}" for one in other)
    found = ", ".join(f"{one.field}={one.found!r}" for one in other)
    fault = f"{said} in the header and {found} in the arrays"
    fault = f"no arrays that show {few(lost)}," if lost else fault
    raise InputError(
        f"{owner}: need arrays as the header says, got {fault} of path={str(path)!r}. "
        "Write the file anew."
    )
