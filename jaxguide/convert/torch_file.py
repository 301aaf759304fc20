"""One file of PyTorch, read by its safe loader: tensors, and nothing else is made.

Nothing in the file is executed. Numbers and options of NumPy and argparse that trainers
put beside the tensors become stand-ins without a value; anything else is refused.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (numpy then knows bfloat16 and the types of 8 bits)
import numpy as np

from jaxguide.convert.stored import Entry, size_of
from jaxguide.errors import InputError

# State dicts stand in state dicts; deeper ones are no weights.
DEEPEST = 4
# A mapped file is opened anew after so many bytes: its pages count as memory.
REOPEN = 128 * 2**20
# What stands in checkpoints beside the tensors: NumPy's numbers, and paths.
_BESIDE = (
    *(
        f"numpy.{core}.multiarray.{n}"
        for core in ("core", "_core")
        for n in ("scalar", "_reconstruct")
    ),
    *(
        f"numpy.dtypes.{kind}{bits}DType"
        for kind in ("Float", "Int", "UInt")
        for bits in (8, 16, 32, 64)
    ),
    "numpy.dtypes.BoolDType",
    "numpy.dtypes.StrDType",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
    "numpy.ndarray",
    "_codecs.encode",
)


class Passed:
    """What stands for a value that is no tensor and is not looked at."""

    def __new__(cls, *args: Any, **named: Any) -> Passed:
        """Whatever it is made from."""
        del args, named
        return super().__new__(cls)

    def __init__(self, *args: Any, **named: Any):
        del args, named

    def __setstate__(self, state: Any) -> None:
        """Forgets it."""


class Reopened:
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


class TorchFile:
    """The tensors of one file; those of state dicts under "state_dict.name".

    Attributes:
        entries, nested, said: as of any `stored.File`.
    """

    said = ""

    def __init__(self, path: Path):
        self._path, self.nested = path, ()
        self._reader = Reopened(self._tensors)
        self.entries = {
            name: Entry(tuple(value.shape), _dtype(value))
            for name, value in self._reader.file(0).items()
        }

    def get(self, name: str) -> np.ndarray:
        """A copy of one array, in the type as stored."""
        entry = self.entries[name]
        value = self._reader.file(size_of(entry))[name].detach()
        torch, dtype = needed_torch(self._path), np.dtype(entry.dtype)
        if dtype.type.__module__ == "numpy":
            return np.array(value.numpy())
        # PyTorch gives no numpy array of these types, but one of the same bits.
        bits = torch.int16 if dtype.itemsize == 2 else torch.uint8
        return np.array(value.contiguous().view(bits).numpy()).view(dtype)

    def _tensors(self) -> dict[str, Any]:
        torch = needed_torch(self._path)
        content = _load(torch, self._path)
        nested: list[str] = []
        found = dict(_flattened(torch, content, "", nested, DEEPEST))
        for name, value in found.items():
            _check_plain(torch, self._path, name, value)
        self.nested = tuple(nested)
        return found


def needed_torch(path: Any) -> Any:
    """PyTorch.

    Raises:
        InputError: if it is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"open_tensors: need PyTorch for path={str(path)!r}, got none. "
            "pip install jaxguide[torch], or convert the file to safetensors."
        ) from error
    return torch


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict as PyTorch does.

    Raises:
        InputError: if PyTorch is missing.
    """
    torch = needed_torch(path)
    # Without the file's own name, so that equal arrays give equal files. The warning
    # is of arrays that may not be written to; nobody does.
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, file)


def _load(torch: Any, path: Path) -> Mapping[str, Any]:
    """What the file holds; what is no tensor is data without a value."""
    stand_ins: list[Any] = [argparse.Namespace, *((Passed, name) for name in _BESIDE)]
    try:
        with torch.serialization.safe_globals(stand_ins):
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


def _flattened(
    torch: Any, content: Mapping, before: str, nested: list[str], depth: int
) -> Iterator[tuple[str, Any]]:
    """Tensors by dotted names; state dicts add their own name to `nested`."""
    for name, value in content.items():
        if not isinstance(name, str):  # optimizers count their states
            continue
        if isinstance(value, torch.Tensor):
            yield before + name, value
        elif isinstance(value, Mapping) and depth:
            nested.append(name)
            yield from _flattened(torch, value, f"{before}{name}.", nested, depth - 1)


def _check_plain(torch: Any, path: Path, name: str, value: Any) -> None:
    """Refuses a tensor whose values do not lie in the file one by one."""
    odd = ""
    if value.is_nested:
        odd = "a nested tensor"
    elif value.layout != torch.strided:
        odd = f"a tensor of layout {value.layout}"
    elif value.is_quantized:
        odd = f"a quantised tensor, {value.dtype}"
    elif value.device.type != "cpu":
        odd = f"a tensor without values, on device {value.device}"
    elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
        odd = f"{value.numel():,} values, more than the file has"
    if odd:
        raise InputError(
            f"open_tensors: need plain tensors, got {odd}, in {name} of "
            f"path={str(path)!r}. Save its values with .dequantize(), .to_dense() or "
            ".contiguous()."
        )


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _reason(error: Exception) -> str:
    """What the safe loader objects to, without its page of advice."""
    text = " ".join(str(error).split())
    match = re.search(
        r"unsupported \w+:? (\w+ )?\S+\.\S+|WeightsUnpickler error: .*",
        text,
        re.IGNORECASE,
    )
    return (match[0] if match else text)[:120] or type(error).__name__
