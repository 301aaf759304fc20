"""One file of named arrays: safetensors, PyTorch's by its safe loader, a TF graph."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxguide.convert import tf_graph
from jaxguide.errors import InputError

PICKLED = (".pt", ".pth", ".bin")
# A training checkpoint holds one state dict per name; the first of these is taken.
KEYS = ("ema", "state_dict", "model")
# A mapped file is opened anew after so many bytes: its pages count as memory.
REOPEN = 128 * 2**20


class Entry(NamedTuple):
    """What one array is, before it is read."""

    shape: tuple[int, ...]
    dtype: str


class File(Protocol):
    """One file of arrays, which are read when asked for."""

    entries: dict[str, Entry]

    def get(self, name: str) -> np.ndarray:
        """A copy of one array, in the type as stored."""
        ...


def open_file(path: Path, key: str) -> tuple[File, str]:
    """One file, and which state dict of it was taken ("" of a bare one).

    Raises:
        InputError: if the file cannot be read safely, holds no arrays under `key`, or
            needs PyTorch where that is missing.
    """
    if path.suffix == ".safetensors":
        return _Safetensors(path), ""
    if path.suffix in PICKLED:
        file = _Pickled(path, key)
        return file, file.key
    if path.suffix == ".pb":
        return _Graph(path), ""
    raise InputError(
        "open_tensors: need a .safetensors, .pt, .pth, .bin or .pb file, got "
        f"path={str(path)!r}. Rename it if it is one of them."
    )


def save_pickled(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict as PyTorch does.

    Raises:
        InputError: if PyTorch is missing.
    """
    torch = _torch(path)
    # Without the file's own name, so that equal arrays give equal files.
    with path.open("wb") as file:
        torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, file)


class _Reopened:
    """Counts what was read, and opens the file anew now and then."""

    def __init__(self, opened: Callable[[], Any]):
        self._opened, self._file, self._read = opened, opened(), 0

    def file(self, size: int) -> Any:
        """The open file, before `size` bytes are read from it."""
        self._read += size
        if self._read > REOPEN:
            # Pages of a map that were read stay in the memory of the process until it
            # is unmapped. First drop the old map, or there are two for a moment.
            self._file = None
            self._file, self._read = self._opened(), size
        return self._file


class _Safetensors:
    """One safetensors file."""

    def __init__(self, path: Path):
        try:
            self._reader = _Reopened(lambda: safe_open(str(path), framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"open_tensors: need a safetensors file, got path={str(path)!r}. "
                f"{error}."
            ) from error
        self.entries = {}
        file = self._reader.file(0)
        for name in file.keys():
            part = file.get_slice(name)
            entry = Entry(tuple(part.get_shape()), _numpy_name(part.get_dtype()))
            self.entries[name] = entry

    def get(self, name: str) -> np.ndarray:
        return np.array(self._reader.file(_size(self.entries[name])).get_tensor(name))


class _Pickled:
    """One file of PyTorch, read by its safe loader."""

    def __init__(self, path: Path, key: str):
        self.key = ""
        self._reader = _Reopened(lambda: self._state(path, key))
        self.entries = {
            name: Entry(tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in self._reader.file(0).items()
        }

    def get(self, name: str) -> np.ndarray:
        value = self._reader.file(_size(self.entries[name]))[name].detach()
        if self.entries[name].dtype != "bfloat16":
            return np.array(value.numpy())
        # PyTorch gives no numpy array of bfloat16, but one of the same bits.
        torch = _torch(name)
        return np.array(value.contiguous().view(torch.int16).numpy()).view("bfloat16")

    def _state(self, path: Path, key: str) -> dict[str, Any]:
        """The tensors of the state dict that is wanted."""
        torch = _torch(path)
        content = _load(torch, path)
        nested = {n for n, v in content.items() if isinstance(v, Mapping)}
        known = [name for name in KEYS if name in nested]
        if key and key not in nested:
            raise InputError(
                f"open_tensors: need a key of {known or 'none, for a bare file'}, got "
                f"key={key!r} in {path.name}. Take another key."
            )
        self.key = key or (known[0] if known else "")
        state = content[self.key] if self.key else content
        return {n: v for n, v in state.items() if isinstance(v, torch.Tensor)}


class _Graph:
    """The constants of one frozen TensorFlow graph."""

    def __init__(self, path: Path):
        self._constants = tf_graph.read_constants(path)
        self.entries = {
            name: Entry(constant.shape, "float32")
            for name, constant in self._constants.items()
        }

    def get(self, name: str) -> np.ndarray:
        return tf_graph.as_array(self._constants[name])


def _torch(path: Any) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"open_tensors: need PyTorch for path={str(path)!r}, got none. "
            "pip install jaxguide[torch], or convert the file to safetensors."
        ) from error
    return torch


def _load(torch: Any, path: Path) -> Mapping[str, Any]:
    """What the file holds; a namespace of options is data, and let through."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            load = {"map_location": "cpu", "weights_only": True}
            try:
                content = torch.load(path, mmap=True, **load)
            except RuntimeError as error:  # files of before 2020 cannot be mapped
                if "mmap" not in str(error):
                    raise
                content = torch.load(path, **load)
    except Exception as error:  # the pickle, zip and torch layers raise what they like
        reason = _reason(error)
        raise InputError(
            "open_tensors: need a file that torch.load(weights_only=True) accepts, got "
            f"path={str(path)!r}. It holds more than tensors or is damaged: {reason}."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            "open_tensors: need a file of named tensors, got "
            f"path={str(path)!r} with a {type(content).__name__}. Save a state dict."
        )
    return content


def _reason(error: Exception) -> str:
    """What the safe loader objects to, without its page of advice."""
    text = " ".join(str(error).split())
    match = re.search(r"Unsupported \S+: \w+ \S+|WeightsUnpickler error: .*", text)
    return (match[0] if match else text)[:120] or type(error).__name__


def _size(entry: Entry) -> int:
    return int(np.prod(entry.shape)) * np.dtype(entry.dtype).itemsize


def _numpy_name(code: str) -> str:
    """The numpy name of a type of safetensors, as in "BF16".

    >>> _numpy_name("F32"), _numpy_name("BF16"), _numpy_name("I64")
    ('float32', 'bfloat16', 'int64')
    """
    short = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint"}
    letters = code.rstrip("0123456789")
    known = letters in short and code != letters
    return f"{short[letters]}{code[len(letters) :]}" if known else code.lower()
