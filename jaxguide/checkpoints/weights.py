"""Weights to share: one safetensors file that says what it is.

The file holds the (averaged) parameters in half precision under dotted names, and
one JSON text in its metadata: architecture, path, kind of prediction, class names and
a note. It can be read without this package, and reading it runs no code.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from jaxguide import disk
from jaxguide.models import DiTConfig

FORMAT = "jaxguide-weights-1"


class Weights(NamedTuple):
    """A trained network, ready to sample.

    Attributes:
        params: nested dict of float32 arrays, as `models.init` makes them.
        model: its architecture.
        path: name of the path it was trained on, for example "linear".
        kind: what it predicts; one of `paths.KINDS`.
        class_names: one per label.
        note: free JSON-able facts: data, steps, seed, hardware.
    """

    params: Any
    model: DiTConfig
    path: str
    kind: str
    class_names: tuple[str, ...]
    note: dict


def save_weights(path: str | Path, weights: Weights, *, dtype: str = "float16") -> None:
    """Writes `weights` to one `.safetensors` file.

    Args:
        path: of the file; its folder is made if missing.
        weights: what to write.
        dtype: storage type of the parameters; float16, bfloat16 or float32.

    Raises:
        ValueError: if `dtype` is unknown.
        OSError: if the file cannot be written.
    """
    if dtype not in ("float16", "bfloat16", "float32"):
        raise ValueError(
            "save_weights: need dtype in ('float16', 'bfloat16', 'float32'), got "
            f"dtype={dtype!r}. float16 suits trained weights."
        )
    about = {
        "format": FORMAT,
        "model": dataclasses.asdict(weights.model),
        "path": weights.path,
        "kind": weights.kind,
        "class_names": list(weights.class_names),
        "note": weights.note,
    }
    flat = traverse_util.flatten_dict(weights.params, sep=".")
    stored = {
        name: jax.numpy.asarray(leaf).astype(dtype) for name, leaf in flat.items()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _write(Path(path), stored, {"jaxguide": json.dumps(about)})


def _write(path: Path, stored: dict[str, jax.Array], metadata: dict[str, str]) -> None:
    """A reader, and a run that is killed, never see half a file."""
    beside = path.with_name(f"{path.name}.tmp")
    try:
        save_file(stored, str(beside), metadata=metadata)
        beside.replace(path)
    except SafetensorError as error:
        beside.unlink(missing_ok=True)
        reason = disk.why_unwritable(error)
        if reason is None:
            raise
        raise OSError(
            f"save_weights: need a folder that can be written, got path={str(path)!r}: "
            f"{reason}. Make room or use another folder."
        ) from error


def load_weights(path: str | Path) -> Weights:
    """Reads a file of `save_weights`; parameters come back as float32.

    Raises:
        ValueError: if the file is missing or was not written by `save_weights`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"load_weights: need an existing file, got path={str(path)!r}. "
            "Check the path."
        )
    about, flat = _read(path)
    model = dict(about["model"])
    size = model["image_size"]
    model["image_size"] = tuple(size) if isinstance(size, list) else size
    model["inputs"] = tuple(model.get("inputs", ()))
    return Weights(
        params=traverse_util.unflatten_dict(flat, sep="."),
        model=DiTConfig(**model),
        path=about["path"],
        kind=about["kind"],
        class_names=tuple(about["class_names"]),
        note=about["note"],
    )


def _read(path: Path) -> tuple[dict, dict[str, jax.Array]]:
    try:
        with safe_open(str(path), framework="flax") as file:
            about = json.loads((file.metadata() or {}).get("jaxguide", "{}"))
            if about.get("format") != FORMAT:
                raise ValueError(
                    f"load_weights: need a file of format {FORMAT!r}, got "
                    f"format={about.get('format')!r} in {path.name}. "
                    "Write it with save_weights."
                )
            names = file.keys()
            flat = {name: file.get_tensor(name).astype(np.float32) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"load_weights: need a safetensors file, got path={str(path)!r}. {error}."
        ) from error
    return about, flat
