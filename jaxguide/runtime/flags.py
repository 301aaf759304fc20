"""Command lines: `--config FILE` with overrides, and mistakes in one line.

`run(main)` lets ml_collections parse `--config=FILE[:arg] --config.field=value ...`,
joins the other processes of the run, if there are any, hands the config to `main`, and
turns a mistake of the user, and a folder that cannot be written, into one line on
standard error with exit code 2. Any other error keeps its traceback: it is a bug.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from jaxguide.runtime import exits, greeting, hosts
from jaxguide.runtime.hosts import Hosts

_PACKAGE = str(Path(__file__).parents[1])
_HOSTS = """
Several processes find each other on TPU pods, under srun and on Kubernetes. By hand:
  --coordinator ADDRESS:PORT --num_processes N --process_id I [--wait SECONDS]
Without --coordinator they share out what needs no connection: files of samples, of
latents, of features. --num_processes 1 runs alone, wherever it is."""
_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=.*)?", re.DOTALL)


class _Mistake(Exception):
    """A mistake on the command line; its text is the line to print."""


def run(
    main: Callable[[Any, Hosts], None],
    *,
    listing: Callable[[str], str] | None = None,
    about: str = "",
    saves: bool = False,
) -> None:
    """Runs `main(config, hosts)` with the config that `sys.argv` describes.

    Args:
        main: receives what `get_config` of the config file returned, with the
            overrides of the command line filled in, and the processes of the run.
        listing: what `--list` or `--list NAME` prints, from the name or "".
        about: what `--help` prints after the usage.
        saves: whether `main` saves after SIGTERM; see `hosts.join`.

    Raises:
        SystemExit: with code 2 and one line on standard error if a file, a field or
            a value is wrong or a folder cannot be written; a ValueError,
            FloatingPointError or OSError that this package raises in `main` counts as
            such.
    """
    try:
        if listing is not None:
            _list(sys.argv[1:], listing)
        config, numbers = _parse(sys.argv, about)
    except _Mistake as mistake:
        leave(str(mistake))
    # A mistake becomes exit code 2 before `hosts.join` is left, which passes that code
    # on to the other processes. It would print the traceback of any other exception.
    with contextlib.ExitStack() as stack, one_line():
        token = greeting.token(config)
        joined = hosts.join(**numbers, saves=saves, token=token)
        processes = stack.enter_context(joined)
        main(config, processes)


class Parser(argparse.ArgumentParser):
    """For programs without a config: a mistake is one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Leaves with what is wrong; the program is called by its last name."""
        name = self.prog.rpartition(".")[2]
        leave(f"{name}: {message}. See {self.prog} --help.")


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """A mistake of the user inside becomes one line and exit code 2.

    Raises:
        SystemExit: as `run`.
    """
    try:
        yield
    except (ValueError, FloatingPointError, OSError) as error:
        leave(_line(error))


def _line(error: Exception) -> str:
    """The line for an error that is no bug; raises any other again."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if getattr(error, "errno", None) is None and raised_in.startswith(_PACKAGE):
        return str(error)
    reason = exits.why_unwritable(error) if isinstance(error, OSError) else None
    if reason is None:
        raise error
    name = getattr(error, "filename", None) or "one that was open"
    return (
        f"cli: need files that can be written, got {str(name)!r}: {reason}. "
        "Make room or choose another folder."
    )


def leave(line: str) -> NoReturn:
    """Prints one line on standard error and exits with code 2."""
    print(" ".join(line.split()), file=sys.stderr)
    raise SystemExit(exits.MISTAKE)


def _list(words: list[str], listing: Callable[[str], str]) -> None:
    """Prints the list and exits, if the command line has `--list`."""
    for position, word in enumerate(words):
        flag, equals, name = word.partition("=")
        if flag not in ("--list", "-list"):
            continue
        following = words[position + 1 : position + 2]
        if not equals and following and not following[0].startswith("-"):
            name = following[0]
        try:
            print(listing(name))
        except ValueError as error:
            raise _Mistake(str(error)) from error
        raise SystemExit(0)


def _parse(argv: list[str], about: str) -> tuple[Any, dict[str, Any]]:
    """The config, and what the flags say of other processes."""
    usage = f"Usage: python -m jaxguide.{_command(argv[0])} --config FILE[:arg]"
    if {"--help", "-h"} & set(argv):
        _help(argv, usage, about)
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    numbers = _define_hosts(values)
    given = _config_file(argv, usage)
    path = _find(given)
    argv = [word.replace(given, path, 1) if given in word else word for word in argv]
    _check_fields(_load(path), argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, IndexError) as error:
        raise _Mistake(f"cli: {error}") from error
    if rest[1:]:
        raise _Mistake(f"cli: need flags only, got {rest[1]!r}. {usage}")
    _check_folder(holder.value)
    return holder.value, {name: flag.value for name, flag in numbers.items()}


def _check_folder(config: Any) -> None:
    """Refuses the address of a bucket, which would become a local folder."""
    folder = str(getattr(config, "folder", ""))
    if "://" in folder:
        raise _Mistake(
            f"cli: need a folder of a file system, got --config.folder={folder!r}. "
            "Mount the bucket, for example with gcsfuse."
        )


def _define_hosts(values: flags.FlagValues) -> dict[str, flags.FlagHolder]:
    """The flags of `hosts.join`."""
    return {
        "coordinator": flags.DEFINE_string("coordinator", "", "", flag_values=values),
        "count": flags.DEFINE_integer("num_processes", 0, "", flag_values=values),
        "index": flags.DEFINE_integer("process_id", -1, "", flag_values=values),
        "wait": flags.DEFINE_float("wait", hosts.WAIT, "", flag_values=values),
    }


def _command(program: str) -> str:
    """Name of a module below the package, from the path of its file."""
    path = Path(program).with_suffix("")
    if not path.is_relative_to(_PACKAGE):
        return path.name
    parts = path.relative_to(_PACKAGE).parts
    return ".".join(part for part in parts if part != "__main__")


def _config_file(argv: list[str], usage: str) -> str:
    """The value of `--config`."""
    for position, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            following = argv[position + 1 : position + 2]
            return value if equals else (following or [""])[0]
    raise _Mistake(f"cli: need a config file, got {argv[1:]!r}. {usage}")


def _help(argv: list[str], usage: str, about: str) -> NoReturn:
    """Prints the usage and, if a config is named, what can be overridden."""
    print(f"{usage} [--config.FIELD=VALUE ...]")
    print("FIELD may reach into lists: --config.guidance[0].scale=2")
    print(_HOSTS)
    print(f"\n{about.strip()}\n" if about else "", end="")
    try:
        config = _load(_find(_config_file(argv, usage)))
    except _Mistake:
        print("Name a config to see its fields: --config FILE --help")
        raise SystemExit(0) from None
    print(f"\n{inspect.getdoc(type(config))}\n\nValues in this file:")
    for name, value in _fields(config).items():
        print(f"  --config.{name}={value!r}")
    raise SystemExit(0)


def _find(value: str) -> str:
    """The same value with a path that exists: configs/NAME.py is in the package too."""
    path, colon, argument = value.partition(":")
    packaged = Path(_PACKAGE) / "configs" / Path(path).name
    if not Path(path).is_file() and Path(path).parent.name in ("configs", ""):
        path = str(packaged) if packaged.is_file() else path
    return f"{path}{colon}{argument}"


def _load(value: str) -> Any:
    """What `get_config` returns, before any override."""
    path, colon, argument = value.partition(":")
    if not Path(path).is_file():
        near = difflib.get_close_matches(path, map(str, _beside(path)), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Check the path."
        raise _Mistake(f"cli: need an existing file, got --config={path!r}. {hint}")
    try:
        return runpy.run_path(path)["get_config"](*([argument] if colon else []))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise _Mistake(
            f"cli: need a config file with get_config(arg), got {path!r}. {reason}"
        ) from error


def _beside(path: str) -> list[Path]:
    return sorted(Path(path).parent.glob("*.py"))


def _check_fields(config: Any, argv: list[str]) -> None:
    """Every overridden field exists; otherwise the nearest one is named."""
    for word in argv:
        match = _OVERRIDE.fullmatch(word)
        if not match:
            continue
        holder = config
        for name in re.findall(r"[^.\[\]]+", match[1]):
            known = _fields(holder)
            if name not in known:
                _refuse(match[1], name, known)
            holder = known[name]


def _refuse(field: str, name: str, known: Mapping[str, Any]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"Did you mean {near[0]!r}?" if near else "It has no fields."
    raise _Mistake(
        f"cli: need a field in {sorted(known)}, got {name!r} in config.{field}. {hint}"
    )


def _fields(holder: Any) -> Mapping[str, Any]:
    """Names and values one level below `holder`."""
    if dataclasses.is_dataclass(holder):
        return {f.name: getattr(holder, f.name) for f in dataclasses.fields(holder)}
    if isinstance(holder, list | tuple):
        return {str(index): value for index, value in enumerate(holder)}
    return holder if isinstance(holder, Mapping) else {}
