"""Named arrays in published files: opened lazily, checked, read one by one.

`.safetensors` files are read by safetensors; `.pt`, `.pth` and `.bin` by PyTorch's safe
loader (`weights_only=True`), never by plain unpickling. A folder may be one component
of diffusers, a whole pipeline of it, or shards with an index.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide.convert import roots
from jaxguide.convert.folders import (
    INDEX,
    check_there,
    component_of,
    read_json,
    shards,
    weights_file,
)
from jaxguide.convert.stored import FLOATS, Entry, File
from jaxguide.convert.tensor_files import open_file
from jaxguide.errors import InputError
from jaxguide.models.container import check_finite, check_shapes
from jaxguide.models.looks import few

# Ends of names of what weights of 8 or 4 bits are multiplied with.
SCALES = ("scale", "scales", "scale_weight", "weight_scale", "weight_scale_inv")
SCALES += ("scale_input", "input_scale", "scaled_fp8", "SCB", "absmax", "qzeros")

Shape = tuple[int, ...]


class Tensors:
    """Named arrays that are read when asked for.

    Attributes:
        path: of the file, or of the index of its shards.
        source: what `open_tensors` was given: that file, or a folder around it.
        config: what `config.json` beside the arrays says; {} where there is none.
        key: which state dict of a training checkpoint this is; "" for a bare one.
        said: what our own files say of themselves; "" in those of others.
        network: where the names come from; see `convert.roots`.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[File],
        config: dict,
        *,
        key: str = "",
        prefix: str = "",
        source: Path | None = None,
    ):
        self.path, self.config = path, config
        self.source = source or path
        self.said = "".join(file.said for file in files)
        holders = _holders(path, files)
        entries = {name: file.entries[name] for name, file in holders.items()}
        nested = [name for file in files for name in file.nested]
        self.network = roots.find(path, entries, key=key, prefix=prefix, nested=nested)
        self.key = self.network.key
        self._holders = {
            name: (holders[original], original)
            for name, original in self.network.names.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the file."""
        return tuple(self._holders)

    def shape(self, name: str) -> Shape:
        """The shape of one array; nothing is read."""
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The numpy name of its type as stored, "bfloat16" included."""
        return self._entry(name).dtype

    def get(self, name: str) -> np.ndarray:
        """One array as stored; a copy of its own."""
        file, original = self._holder(name)
        return file.get(original)

    def _entry(self, name: str) -> Entry:
        file, original = self._holder(name)
        return file.entries[original]

    def _holder(self, name: str) -> tuple[File, str]:
        if name not in self._holders:
            raise InputError(
                f"Tensors: need a name of {self.path.name}, got name={name!r}. It has "
                f"{few(self.names)}."
            )
        return self._holders[name]


def open_tensors(
    path: str | Path | Tensors, *, key: str = "", prefix: str = "", component: str = ""
) -> Tensors:
    """Opens named arrays; reads names and shapes, but no values yet.

    Args:
        path: a `.safetensors`, `.pt`, `.pth` or `.bin` file; an index of shards
            (`*.index.json`); or a folder that holds one of them. What is open already
            is returned as it is.
        key: of a training checkpoint, the state dict to take; "" takes the first there
            is of "ema", "state_dict" and "model".
        prefix: what stands before all names, such as "net.", where it is none of those
            that are known; see `convert.roots`.
        component: of a folder with `model_index.json`, the subfolder to take, such as
            "transformer" or "vae".

    Raises:
        InputError: if there is no such file, it cannot be read safely, PyTorch is
            missing for a file that needs it, or it holds several networks.
    """
    if isinstance(path, Tensors):
        return path
    source = path = Path(path)
    check_there(path)
    config = {}
    if path.is_dir():
        path = component_of(path, component)
        config = read_json(path / "config.json")
        path = weights_file(path)
    if path.name.endswith(INDEX):
        files = shards(path)
    else:
        files = [open_file(path)]
    return Tensors(path, files, config, key=key, prefix=prefix, source=source)


def _holders(path: Path, files: Sequence[File]) -> dict[str, File]:
    """The file of every array.

    Raises:
        InputError: if two shards have an array of one name.
    """
    found: dict[str, File] = {}
    for file in files:
        for name in file.entries:
            if found.setdefault(name, file) is not file:
                raise InputError(
                    f"open_tensors: need every array once, got {name} in two shards of "
                    f"path={str(path)!r}. Remove one of them."
                )
    return found


def number(tensors: Tensors, name: str, default: float) -> float:
    """A number of `config.json`; the default where it is missing or null.

    Raises:
        InputError: if it is something else than a finite number.
    """
    value = tensors.config.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(
            f"open_tensors: need a number for {name} in the config.json of "
            f"path={str(tensors.source)!r}, got {name}={value!r:.80}. Mend it."
        )
    return value


def whole(tensors: Tensors, name: str, default: int) -> int:
    """A whole number of `config.json`, as `number`."""
    value = number(tensors, name, default)
    if value != int(value):
        raise InputError(
            f"open_tensors: need a whole {name} in the config.json of "
            f"path={str(tensors.source)!r}, got {name}={value!r}. Mend it."
        )
    return int(value)


def check(
    owner: str,
    tensors: Tensors,
    wanted: Mapping[str, Shape],
    ignore: Sequence[str] = (),
) -> None:
    """Compares names and shapes with the wanted ones; reads no values.

    Args:
        owner: the public name that the error begins with.
        tensors: what was opened.
        wanted: shape of every array that is needed.
        ignore: shell patterns of names that may be there and are not needed.

    Raises:
        InputError: one line with all that is missing, extra or of another shape; the
            first few of each kind where they are many. Also if they are whole numbers
            or have scales beside them, as quantised weights.
    """
    actual = {
        name: tensors.shape(name)
        for name in tensors.names
        if name in wanted or not any(fnmatch.fnmatch(name, p) for p in ignore)
    }
    scales = [name for name in actual if name.rpartition(".")[2] in SCALES]
    whole = [
        f"{name} {tensors.dtype(name)}"
        for name in wanted
        if name in actual and tensors.dtype(name) not in FLOATS
    ]
    if whole or any(name not in wanted for name in scales):
        raise InputError(
            f"{owner}: need weights of floating point, got path={str(tensors.path)!r} "
            f"with {few(whole or scales)}. Quantised weights mean nothing without "
            "their scales: convert them to float16 with what wrote them."
        )
    advice = "Check the format and its options."
    check_shapes(owner, tensors.path, actual, wanted, advice)


def take(
    owner: str,
    tensors: Tensors,
    wanted: Mapping[str, Shape],
    ignore: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Checks names and shapes, then reads all that is wanted as float32.

    Args:
        owner: the public name that an error begins with.
        tensors: what was opened.
        wanted: shape of every array that is needed.
        ignore: shell patterns of names that may be there and are not needed.

    Returns:
        float32 arrays by name.

    Raises:
        InputError: as `check`.
        NonFiniteError: if a value is NaN or infinite.
    """
    check(owner, tensors, wanted, ignore)
    return {name: read(owner, tensors, name, "float32") for name in wanted}


def read(owner: str, tensors: Tensors, name: str, dtype: Any) -> np.ndarray:
    """One array of weights in the type that is wanted.

    Raises:
        NonFiniteError: if a value is NaN or infinite, or too large for the type.
    """
    with np.errstate(over="ignore"):  # it is named below
        value = tensors.get(name).astype(dtype, copy=False)
    check_finite(owner, tensors.path, name, value)
    return value


def table(tensors: Tensors, *, longest: int = 40) -> str:
    """Names, shapes and types as text; numbered groups in one line when it is long.

    A last line has what was cut before the names, and what was passed over.
    """
    rows = [(n, str(list(tensors.shape(n))), tensors.dtype(n)) for n in tensors.names]
    total = sum(math.prod(tensors.shape(name)) for name in tensors.names)
    foot = f"{len(rows)} arrays, {total:,} values"
    lines = rows if len(rows) <= longest else _grouped(rows)
    widths = [max((len(row[i]) for row in lines), default=0) for i in range(2)]
    text = [f"{n:<{widths[0]}}  {s:<{widths[1]}}  {d}" for n, s, d in lines]
    told = roots.about(tensors.network)
    return "\n".join([*text, foot, *([told] if told else [])])


def _grouped(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Rows that differ in numbers alone become one, with how often it stands there."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, shape, dtype in rows:
        parts = ["*" if part.isdigit() else part for part in name.split(".")]
        groups.setdefault((".".join(parts), shape, dtype), []).append(name)
    return [
        (names[0], shape, dtype)
        if len(names) == 1
        else (pattern, shape, f"{dtype}  x {len(names)}")
        for (pattern, shape, dtype), names in groups.items()
    ]
