"""Named arrays in published files: opened lazily, checked, read one by one.

`.safetensors` files are read by safetensors; `.pt`, `.pth` and `.bin` by PyTorch's safe
loader (`weights_only=True`), never by plain unpickling. A folder may be one component
of diffusers, a whole pipeline of it, or shards with an index.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxguide.convert.tensor_files import PICKLED, Entry, File, open_file
from jaxguide.errors import InputError

INDEX = ".index.json"
# What wrappers put before every name.
WRAPPERS = ("module.", "_orig_mod.")
SHOWN = 6

Shape = tuple[int, ...]


class Tensors:
    """Named arrays that are read when asked for.

    Attributes:
        path: of the file, or of the index of its shards.
        source: what `open_tensors` was given: that file, or a folder around it.
        config: what `config.json` beside the arrays says; {} where there is none.
        key: which state dict of a training checkpoint this is; "" for a bare one.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[File],
        config: dict,
        key: str = "",
        source: Path | None = None,
    ):
        self.path, self.config, self.key = path, config, key
        self.source = source or path
        names = [name for file in files for name in file.entries]
        cut = _wrapper(names)
        self._holders = {
            name.removeprefix(cut): (file, name)
            for file in files
            for name in file.entries
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
                f"{_few(self.names)}."
            )
        return self._holders[name]


def open_tensors(
    path: str | Path | Tensors, *, key: str = "", component: str = ""
) -> Tensors:
    """Opens named arrays; reads names and shapes, but no values yet.

    Args:
        path: a `.safetensors`, `.pt`, `.pth` or `.bin` file; an index of shards
            (`*.index.json`); or a folder that holds one of them. What is open already
            is returned as it is.
        key: of a training checkpoint, the state dict to take; "" takes the first there
            is of "ema", "state_dict" and "model".
        component: of a folder with `model_index.json`, the subfolder to take, such as
            "transformer" or "vae".

    Raises:
        InputError: if there is no such file, it cannot be read safely, or PyTorch is
            missing for a file that needs it.
    """
    if isinstance(path, Tensors):
        return path
    source = path = Path(path)
    if not path.exists():
        raise InputError(
            f"open_tensors: need an existing file or folder, got path={str(path)!r}. "
            "Check the path."
        )
    config = {}
    if path.is_dir():
        path = _component(path, component)
        config = read_json(path / "config.json")
        path = _weights_file(path)
    if path.name.endswith(INDEX):
        shards = sorted(set(read_json(path)["weight_map"].values()))
        files = [open_file(path.parent / name, key)[0] for name in shards]
        return Tensors(path, files, config, source=source)
    file, key = open_file(path, key)
    return Tensors(path, [file], config, key, source)


def read_json(path: Path) -> dict:
    """What a JSON file says; {} where there is none.

    Raises:
        InputError: if it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(
            f"open_tensors: need JSON, got path={str(path)!r}. {error}."
        ) from error


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
            first few of each kind where they are many.
    """
    names = set(tensors.names)
    extra = [
        name
        for name in tensors.names
        if name not in wanted and not any(fnmatch.fnmatch(name, p) for p in ignore)
    ]
    other = [
        f"{name} {list(tensors.shape(name))} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in names and tensors.shape(name) != tuple(shape)
    ]
    missing = [name for name in wanted if name not in names]
    differences = {"missing": missing, "extra": extra, "of another shape": other}
    faults = [f"{len(f)} {kind} ({_few(f)})" for kind, f in differences.items() if f]
    if faults:
        raise InputError(
            f"{owner}: need {len(wanted)} arrays of this layout, got "
            f"path={tensors.path.name!r} with {'; '.join(faults)}. Check the format "
            "and its options."
        )


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
    """
    check(owner, tensors, wanted, ignore)
    return {name: tensors.get(name).astype(np.float32, copy=False) for name in wanted}


def table(tensors: Tensors, *, longest: int = 40) -> str:
    """Names, shapes and types as text; numbered groups in one line when it is long.

    >>> from pathlib import Path
    >>> table(Tensors(Path("empty.pt"), [], {}))
    '0 arrays, 0 values'
    """
    rows = [(n, str(list(tensors.shape(n))), tensors.dtype(n)) for n in tensors.names]
    total = sum(int(np.prod(tensors.shape(name))) for name in tensors.names)
    foot = f"{len(rows)} arrays, {total:,} values"
    lines = rows if len(rows) <= longest else _grouped(rows)
    widths = [max((len(row[i]) for row in lines), default=0) for i in range(2)]
    text = [f"{n:<{widths[0]}}  {s:<{widths[1]}}  {d}" for n, s, d in lines]
    return "\n".join([*text, foot])


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


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, ..."


def _wrapper(names: Sequence[str]) -> str:
    """What stands before every name and belongs to none; wrappers may be nested."""
    cut = ""
    while names and (
        more := next(
            (w for w in WRAPPERS if all(n.startswith(cut + w) for n in names)), ""
        )
    ):
        cut += more
    return cut


def _component(folder: Path, component: str) -> Path:
    """The folder itself, or the component of a pipeline."""
    index = read_json(folder / "model_index.json")
    if not index:
        return folder
    if not (folder / component).is_dir() or not component:
        known = sorted(name for name in index if (folder / name).is_dir())
        raise InputError(
            f"open_tensors: need a component of {known}, got component={component!r} "
            f"in {str(folder)!r}. Give the subfolder."
        )
    return folder / component


def _weights_file(folder: Path) -> Path:
    """The one file of weights in a folder, safetensors before PyTorch's files."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    for kind in (f".safetensors{INDEX}", ".safetensors", f".bin{INDEX}", *PICKLED):
        matching = [file for file in files if file.name.endswith(kind)]
        plain = [file for file in matching if ".fp16." not in file.name] or matching
        if len(plain) == 1:
            return plain[0]
        if plain:
            raise InputError(
                "open_tensors: need one file of weights, got "
                f"path={str(folder)!r} with {_few([file.name for file in plain])}. "
                "Name the file."
            )
    raise InputError(
        "open_tensors: need a folder with a .safetensors, .pt, .pth or .bin file, got "
        f"path={str(folder)!r} with {_few([f.name for f in files]) or 'no files'}. "
        "Check the path."
    )
