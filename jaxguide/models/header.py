"""The JSON text in our weight files: what it must be, and what it is held against."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxguide.errors import InputError
from jaxguide.models import looks
from jaxguide.models.looks import few
from jaxguide.runtime.calls import call

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
    if kind is float and not abs(value) <= sys.float_info.max:
        raise InputError(
            f"header: need a finite {name}, got {name}={value!r:.80}. Write the file "
            "anew."
        )
    made: Any = kind
    return made(value)


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


def parsed(owner: str, path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
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
            f"{owner}: need a JSON object in the header, got {json.dumps(about)[:40]} "
            f"in path={str(path)!r}. Write the file anew."
        )
    return about


def check_no_pickle(owner: str, path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(4)
    if first.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise InputError(
            f"{owner}: need a safetensors file of ours, got path={str(path)!r}, which "
            "looks like PyTorch's: python -m jaxguide.convert --from FORMAT FILE OUT."
        )


def foreign(
    owner: str, path: Path, said: Any, format: str, writer: str, names: set[str]
) -> InputError:
    """What to say of a file that `writer` did not write."""
    known = looks.OURS.get(said) if isinstance(said, str) else None
    advice = f"It holds {known}." if known else looks.hint(names)
    return InputError(
        f"{owner}: need a file of format {format!r}, got format={said!r} in "
        f"path={str(path)!r}. {advice or f'Write it with {writer}.'}"
    )


def check_shown(owner: str, path: Path, shown: list[Shown]) -> None:
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
