"""Folders of weights: the one file in them, or the shards that an index names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxguide.convert.stored import File
from jaxguide.convert.tensor_files import PICKLED, open_file
from jaxguide.errors import InputError
from jaxguide.models.looks import few

INDEX = ".index.json"


def check_there(path: Path) -> None:
    """Raises InputError unless there is such a file or folder."""
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder without rights
        raise InputError(
            f"open_tensors: need a path that can be read, got path={str(path)!r}: "
            f"{error.strerror}. Check the path."
        ) from error
    if not there:
        raise InputError(
            f"open_tensors: need an existing file or folder, got path={str(path)!r}. "
            "Check the path."
        )


def shards(path: Path) -> list[File]:
    """The files that an index names.

    Raises:
        InputError: if the index is none, leaves its folder, or does not fit its files.
    """
    given = read_json(path).get("weight_map")
    places = given if isinstance(given, dict) else {}
    if not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(
            "open_tensors: need an index with a weight_map of names to files, got "
            f"path={str(path)!r} without. Download the index anew."
        )
    files: dict[str, File] = {}
    for name in sorted(set(places.values())):
        shard = Path(name)
        if shard.is_absolute() or ".." in shard.parts or not name.strip():
            raise InputError(
                f"open_tensors: need shards beside the index, got {name!r} in "
                f"path={str(path)!r}. Download the index anew."
            )
        check_there(path.parent / shard)
        files[name] = open_file(path.parent / shard)
    lost = [n for n, shard in places.items() if n not in files[shard].entries]
    if lost:
        raise InputError(
            f"open_tensors: need the arrays of the index, got none of {few(lost)} in "
            f"the shards of path={str(path)!r}. Download the shards anew."
        )
    return list(files.values())


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says; {} where there is none.

    Raises:
        InputError: if it is no JSON, or no dict.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else "{}"
        found = json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"open_tensors: need JSON, got path={str(path)!r}. {error}."
        ) from error
    if not isinstance(found, dict):
        raise InputError(
            f"open_tensors: need a dict of JSON, got path={str(path)!r} with a "
            f"{type(found).__name__}. Download it anew."
        )
    return found


def component_of(folder: Path, component: str) -> Path:
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


def weights_file(folder: Path) -> Path:
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
                f"path={str(folder)!r} with {few([file.name for file in plain])}. "
                "Name the file."
            )
    raise InputError(
        "open_tensors: need a folder with a .safetensors, .pt, .pth or .bin file, got "
        f"path={str(folder)!r} with {few([f.name for f in files]) or 'no files'}. "
        "Check the path."
    )
