"""Config files: Python with `get_config(arg)`, found, executed once and checked.

A config file is a program: it is executed with the rights of whoever runs the command.
"""

from __future__ import annotations

import difflib
import inspect
import os
import runpy
import traceback
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError
from jaxguide.runtime import values
from jaxguide.runtime.calls import lookup

_PACKAGE = Path(__file__).parents[1]


def load(value: str, kind: type = object, *, flag: str = "--config") -> Any:
    """What `get_config(arg)` of "FILE" or "FILE:arg" returns.

    Args:
        value: the file and its argument; configs/NAME.py is found in the package too.
        kind: what it has to return; its fields are checked.
        flag: that names the file, for errors.

    Raises:
        InputError: if there is no such file, it fails, or returns something else.
    """
    path, colon, argument = _find(value).partition(":")
    if not os.path.isfile(path):  # False too where a name is too long
        near = difflib.get_close_matches(path, map(str, _beside(path)), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Check the path."
        raise InputError(f"cli: need an existing file, got {flag}={path!r}. {hint}")
    config = _executed(path, [argument] if colon else [])
    if kind is not object and type(config) is not kind:
        got = "None" if config is None else f"a {type(config).__name__}"
        raise InputError(
            f"cli: need a config file whose get_config returns a {kind.__name__}, got "
            f"{flag}={path!r}, which returns {got}. Use one of this command."
        )
    if kind is not object:
        values.check(config)
    return config


def variant(arg: str, *names: str) -> str:
    """`arg` of a config file, which has to be one of `names`.

    Raises:
        InputError: if it is none of them; names the nearest.
    """
    return lookup("get_config", arg, {name: name for name in names})


def _executed(path: str, arguments: list[str]) -> Any:
    """The result of `get_config`; what goes wrong in the file is one line."""
    try:
        function = runpy.run_path(path).get("get_config")
        if not callable(function):
            raise InputError(
                f"cli: need a config file with get_config(arg), got {path!r}, which "
                "has none."
            )
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            raise InputError(
                f"cli: need get_config{inspect.signature(function)} to take "
                f"{arguments or 'no argument'}, as in --config={path}"
                f"{''.join(':' + one for one in arguments)}."
            ) from None
        return function(*arguments)
    except InputError as error:
        text = str(error)
        raise InputError(
            text if text.startswith("cli:") else f"cli: {path}: {text}"
        ) from error
    except (Exception, SystemExit) as error:
        places = traceback.extract_tb(error.__traceback__)
        lines = [place.lineno for place in places if place.filename == path]
        where = f", line {lines[-1]}" if lines else ""
        raise InputError(
            f"cli: need a config file with get_config(arg), got {path!r}{where}. "
            f"{type(error).__name__}: {error}"
        ) from error


def _find(value: str) -> str:
    """The same value with a path that exists: configs/NAME.py is in the package too."""
    path, colon, argument = value.partition(":")
    packaged = _PACKAGE / "configs" / Path(path).name
    if not os.path.isfile(path) and Path(path).parent.name in ("configs", ""):
        path = str(packaged) if packaged.is_file() else path
    return f"{path}{colon}{argument}"


def _beside(path: str) -> list[Path]:
    return sorted(Path(path).parent.glob("*.py"))
