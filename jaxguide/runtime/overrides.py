"""Overrides of a config on the command line: the field exists, the value fits.

`--config.FIELD=VALUE` is parsed by ml_collections; what it would refuse in words of
Python, or with a traceback, is refused here first.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Mapping
from typing import Any, NoReturn

from absl import flags

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.runtime import values

_OVERRIDE = re.compile(r"--?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_PARSERS = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
}


def check(config: Any, argv: list[str]) -> None:
    """Checks every override in the words of a command line.

    Raises:
        InputError: if a field does not exist, cannot be given on a command line, or the
            text is no value of it; names the nearest field.
    """
    for position, word in enumerate(argv):
        match = _OVERRIDE.fullmatch(word)
        if not match:
            continue
        hint = _hint(config, match[1])
        text = match[2]
        if text is None and hint is not bool:
            text = (argv[position + 1 : position + 2] or [None])[0]
        _check_text(match[1], hint, text)


def check_flags(kinds: Mapping[str, type], argv: list[str]) -> None:
    """Checks the values of flags that are no fields, by their types.

    Raises:
        InputError: if the text is no value of the type, or not finite.
    """
    for position, word in enumerate(argv):
        name, equals, text = word.lstrip("-").partition("=")
        if word.startswith("-") and name in kinds:
            given = text if equals else (argv[position + 1 : position + 2] or [None])[0]
            value = _parsed(name, kinds[name], given)
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"cli: need a finite {name}, got --{name}={given}."
                )


def fields(holder: Any) -> Mapping[str, Any]:
    """Names and values one level below `holder`."""
    if dataclasses.is_dataclass(holder):
        return {f.name: getattr(holder, f.name) for f in dataclasses.fields(holder)}
    if isinstance(holder, list | tuple):
        return {str(index): value for index, value in enumerate(holder)}
    return holder if isinstance(holder, Mapping) else {}


def _hint(config: Any, path: str) -> Any:
    """The type of the field at `path`, which has to exist."""
    holder, hint = config, type(config)
    names = re.findall(r"[^.\[\]]+", path)
    for name in names or [""]:
        known = fields(holder)
        if name not in known:
            _unknown(path, name, known)
        hint = type(known[name])
        if dataclasses.is_dataclass(holder):
            hint = typing.get_type_hints(type(holder))[name]
        holder = known[name]
    return hint


def _check_text(path: str, hint: Any, text: str | None) -> None:
    kind = typing.get_origin(hint) or hint
    if kind in (list, dict, set) or dataclasses.is_dataclass(kind):
        raise InputError(
            f"cli: need a field with one value, got config.{path}, which has fields of "
            f"its own. Change those, as in --config.guidance[0].scale=2, or the file."
        )
    if kind in _PARSERS and not (text is None and kind is bool):
        _parsed(f"config.{path}", kind, text)


def _parsed(name: str, kind: type, text: str | None) -> Any:
    """The value of a flag."""
    try:
        if text is None:
            raise ValueError
        return _PARSERS[kind].parse(text)
    except ValueError:
        need, example = values.WORDS[kind]
        raise InputError(
            f"cli: need {need} for {name}, got --{name}={(text or '')[:60]}. "
            f"Write --{name}={example}."
        ) from None


def _unknown(path: str, name: str, known: Mapping[str, Any]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"Did you mean {near[0]!r}?" if near else "It has no fields."
    raise InputError(
        f"cli: need a field in {sorted(known)}, got {name!r} in config.{path}. {hint}"
    )
