"""Command lines: `--config FILE` with overrides, and mistakes in one line.

`run(main)` lets ml_collections parse `--config=FILE[:arg] --config.field=value ...`,
joins the other processes of the run, if there are any, and hands the config to `main`.
Whatever ends it becomes one line on standard error and an exit code; see `answers`.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from jaxguide.errors import InputError
from jaxguide.runtime import (
    compiled,
    config_file,
    files,
    greeting,
    hosts,
    interrupt,
    overrides,
    values,
)
from jaxguide.runtime.answers import TRACEBACK, leave, one_line
from jaxguide.runtime.hosts import Hosts

_PACKAGE = str(Path(__file__).parents[1])
_NUMBERS = {"num_processes": int, "process_id": int, "wait": float}
# Fields of configs that name folders to write to.
FOLDERS = ("folder", "cache")
_HOSTS = """
Several processes find each other on TPU pods, under srun and on Kubernetes. By hand:
  --coordinator ADDRESS:PORT --num_processes N --process_id I [--wait SECONDS]
Without --coordinator they share out what needs no connection: files of samples, of
latents, of features. --num_processes 1 runs alone, wherever it is."""


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
            overrides of the command line filled in, and the processes of the run. The
            annotation of its first parameter says which config it takes.
        listing: what `--list` or `--list NAME` prints, from the name or "".
        about: what `--help` prints after the usage.
        saves: whether `main` saves after SIGTERM; see `hosts.join`.

    Raises:
        SystemExit: with a code of `answers` unless all went well.
    """
    with interrupt.answered():
        with one_line():
            if listing is not None:
                _list(sys.argv[1:], listing)
            config, numbers = _parse(sys.argv, about, _kind(main))
        # What goes wrong becomes an exit code before `hosts.join` is left, which passes
        # that code on to the other processes.
        with contextlib.ExitStack() as stack, one_line(hosts.news):
            token = greeting.token(config)
            joined = hosts.join(**numbers, saves=saves, token=token)
            processes = stack.enter_context(joined)
            compiled.keep_programs()
            main(config, processes)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """For programs without a config: what ends one is a line and an exit code."""
    with interrupt.answered(), one_line():
        compiled.keep_programs()
        yield


def _kind(main: Callable) -> type:
    """The dataclass that a program takes; `object` if it does not say."""
    hints = typing.get_type_hints(main)
    first = next(iter(inspect.signature(main).parameters), "")
    return hints.get(first, object)


class Parser(argparse.ArgumentParser):
    """For programs without a config: a mistake is one line and exit code 2."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        said = "print the traceback of an unexpected error"
        self.add_argument(TRACEBACK, action="store_true", help=said)

    def error(self, message: str) -> NoReturn:
        """Leaves with what is wrong; the program is called by its last name."""
        name = self.prog.rpartition(".")[2]
        leave(f"{name}: {message}. See {self.prog} --help.")


def _list(words: list[str], listing: Callable[[str], str]) -> None:
    """Prints the list and exits, if the command line has `--list`."""
    for position, word in enumerate(words):
        flag, equals, name = word.partition("=")
        if flag not in ("--list", "-list"):
            continue
        following = words[position + 1 : position + 2]
        if not equals and following and not following[0].startswith("-"):
            name = following[0]
        print(listing(name))
        raise SystemExit(0)


def _parse(argv: list[str], about: str, kind: type) -> tuple[Any, dict[str, Any]]:
    """The config, and what the flags say of other processes."""
    usage = f"Usage: python -m jaxguide.{_command(argv[0])} --config FILE[:arg]"
    if {"--help", "-h"} & set(argv):
        _help(argv, usage, about)
    given, argv = _config_file(argv, usage)
    config = config_file.load(given, kind)
    overrides.check(config, argv)
    overrides.check_flags(_NUMBERS, argv)
    flag_values = flags.FlagValues()
    numbers = _define_hosts(flag_values)
    flags.DEFINE_bool(TRACEBACK.lstrip("-"), False, "", flag_values=flag_values)
    holder = config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=flag_values, sys_argv=argv
    )
    try:
        rest = flag_values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"cli: {error}") from error
    if rest[1:]:
        raise InputError(f"cli: need flags only, got {rest[1]!r}. {usage}")
    config = holder.value
    if kind is not object:
        values.check(config)
    _check_folders(config)
    return config, {name: flag.value for name, flag in numbers.items()}


def _check_folders(config: Any) -> None:
    """Raises InputError for a folder that cannot be written, or a bucket."""
    for name in FOLDERS:
        folder = str(getattr(config, name, ""))
        if "://" in folder:
            raise InputError(
                f"cli: need a folder of a file system, got --config.{name}={folder!r}. "
                "Mount the bucket, for example with gcsfuse."
            )
        if folder:
            files.check_writable(folder, "cli", f"--config.{name}")


def _define_hosts(known: flags.FlagValues) -> dict[str, flags.FlagHolder]:
    """The flags of `hosts.join`."""
    return {
        "coordinator": flags.DEFINE_string("coordinator", "", "", flag_values=known),
        "count": flags.DEFINE_integer("num_processes", 0, "", flag_values=known),
        "index": flags.DEFINE_integer("process_id", -1, "", flag_values=known),
        "wait": flags.DEFINE_float("wait", hosts.WAIT, "", flag_values=known),
    }


def _command(program: str) -> str:
    """Name of a module below the package, from the path of its file."""
    path = Path(program).with_suffix("")
    if not path.is_relative_to(_PACKAGE):
        return path.name
    parts = path.relative_to(_PACKAGE).parts
    return ".".join(part for part in parts if part != "__main__")


def _config_file(argv: list[str], usage: str) -> tuple[str, list[str]]:
    """The value of `--config`, and the words without it."""
    for position, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-config"):
            continue
        last = position + 1 if equals else position + 2
        value = value if equals else (argv[position + 1 : last] or [""])[0]
        rest = [*argv[:position], *argv[last:]]
        if any(re.fullmatch("--?config(=.*)?", word, re.DOTALL) for word in rest):
            raise InputError(f"cli: need one config file, got {argv[1:]!r}. {usage}")
        return value, rest
    raise InputError(f"cli: need a config file, got {argv[1:]!r}. {usage}")


def _help(argv: list[str], usage: str, about: str) -> NoReturn:
    """Prints the usage and, if a config is named, what can be overridden."""
    print(f"{usage} [--config.FIELD=VALUE ...]")
    print("FIELD may reach into lists: --config.guidance[0].scale=2")
    print(_HOSTS)
    print(f"\n{about.strip()}\n" if about else "", end="")
    try:
        config = config_file.load(_config_file(argv, usage)[0])
    except InputError:
        print("Name a config to see its fields: --config FILE --help")
        raise SystemExit(0) from None
    print(f"\n{inspect.getdoc(type(config))}\n\nValues in this file:")
    for name, value in overrides.fields(config).items():
        print(f"  --config.{name}={value!r}")
    raise SystemExit(0)
