"""What a function of the user computes, as a checksum: other code, another text.

Of the user's own code it takes in: bytecode, defaults, values in closures and global
ones that the code names, and the files of modules that it names, with theirs. Of
installed packages, and of this one, names alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = Path(__file__).resolve().parents[1]
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def digest(*functions: Any) -> str:
    """A checksum that changes when what the functions compute does.

    Bytecode differs between versions of Python; so does this.

    Args:
        functions: plain ones, methods, partials, or callable objects.
    """
    walk = _Walk()
    for function in functions:
        walk.add(function)
    return walk.total.hexdigest()[:16]


def is_ours(function: Any) -> bool:
    """Whether a function was written in this package."""
    module = _module(inspect.unwrap(function))
    return module is not None and _inside(_file(module), _PACKAGE)


class _Walk:
    """Everything that can be reached from a function, each once."""

    def __init__(self):
        self.total = hashlib.sha256()
        self._seen: dict[int, Any] = {}  # kept alive, or numbers would be used again

    def add(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self.total.update(f"{type(value).__name__} {value!r}\n".encode())
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self.total.update(f"{_name(value)}\n".encode())
        for part in self._parts(value):
            self.add(part)

    def _parts(self, value: Any) -> Iterator[Any]:
        """What a value is made of."""
        if isinstance(value, types.ModuleType):
            yield from _of_module(value)
        elif isinstance(value, type):
            yield _module(value)
        elif isinstance(value, types.CodeType):
            yield from (value.co_code, *value.co_consts, *value.co_names)
        elif isinstance(value, types.FunctionType):
            yield from _of_function(value)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, Mapping):
            for pair in value.items():
                yield from pair
        elif isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, set | frozenset):
            yield from sorted(map(repr, value))
        elif (array := _as_array(value)) is not None:
            numbers = array.tolist() if array.dtype.hasobject else array.tobytes()
            yield from (str(array.dtype), str(array.shape), numbers)
        elif hasattr(value, "__wrapped__"):  # a compiled function
            yield value.__wrapped__
        else:
            yield from (type(value), *_of_object(value))


def _of_object(value: Any) -> Iterator[Any]:
    """What an object holds; of one of a library numbers, arrays and containers alone,
    since the rest may differ from process to process."""
    held = list(getattr(value, "__dict__", {}).values())
    if dataclasses.is_dataclass(value) or not _is_installed(_module(value)):
        yield from held
    kinds = (*_PLAIN, Mapping, list, tuple)
    for one in held:
        if isinstance(one, kinds) or _as_array(one) is not None:
            yield one


def _as_array(value: Any) -> np.ndarray | None:
    """An array of any library that can be read here; None for anything else."""
    if not hasattr(value, "__array__"):
        return None
    try:
        return np.asarray(value)
    except Exception:  # a random key of jax, an array on another device: many types
        return None


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet filled
            continue
    yield from (function.__defaults__, function.__kwdefaults__)
    if _is_installed(_module(function)):
        return
    yield function.__code__
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield function.__globals__[name]


def _names(code: types.CodeType) -> list[str]:
    """Names that code, and code inside it, looks up."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [*code.co_names, *(name for one in inner for name in _names(one))]


def _of_module(module: types.ModuleType) -> Iterator[Any]:
    """The file of a module of the user, and the modules that it uses."""
    file = _file(module)
    if _is_installed(module) or file is None:
        return
    yield file.read_bytes()
    for value in vars(module).values():
        if isinstance(value, types.ModuleType):
            yield value
        elif isinstance(value, types.FunctionType | type):
            yield _module(value)


def _name(value: Any) -> str:
    """Of what has one; of an object that of its type."""
    owner = value if hasattr(value, "__qualname__") else type(value)
    name = getattr(owner, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', '')} {name}"


def _module(value: Any) -> types.ModuleType | None:
    """Where a function or type, or the type of an object, was written."""
    name = getattr(value, "__module__", None) or type(value).__module__
    return sys.modules.get(name)


def _file(module: types.ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if file else None
    return path if path and path.is_file() else None


def _inside(path: Path | None, folder: Path) -> bool:
    return path is not None and path.is_relative_to(folder)


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return (_PACKAGE, *(Path(sysconfig.get_path(name)).resolve() for name in names))


def _is_installed(module: types.ModuleType | None) -> bool:
    """Whether a module is of a package, or of Python, whose versions have names."""
    if module is None:
        return False
    file = _file(module)
    if file is None:  # in the interpreter, or typed in
        return module.__name__ != "__main__"
    return any(_inside(file, folder) for folder in _installed_folders())
