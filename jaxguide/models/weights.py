"""Weights to share: one safetensors file that says what it is.

The file holds the (averaged) parameters in half precision under dotted names, and
one JSON text in its metadata: architecture, path, kind of prediction, class names and
a note. It can be read without this package, and reading it runs no code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from jaxguide.errors import InputError
from jaxguide.models import container, header
from jaxguide.models.convolution import parameter_shapes
from jaxguide.models.dit import init
from jaxguide.models.dit_config import DiTConfig
from jaxguide.models.shown import by_dit
from jaxguide.models.tuning import untuned
from jaxguide.paths import KINDS, PATHS
from jaxguide.runtime.calls import lookup
from jaxguide.runtime.devices import DTYPES

FORMAT = "jaxguide-weights-1"

Place = Callable[[str, np.ndarray], Any]


class Weights(NamedTuple):
    """A trained network, ready to sample.

    Attributes:
        params: nested dict of float32 arrays, as `models.init` makes them.
        model: its architecture.
        path: name of the path it was trained on, for example "linear".
        kind: what it predicts; one of `paths.KINDS`.
        class_names: one per label.
        note: free JSON-able facts: data, steps, seed, hardware.
        guided_channels: of the first channels that guidance changes, as published
            figures of DiT and SiT were sampled (3 of 4); 0 is all.
        latents: the autoencoder of these latents, such as "sd-vae-ft-ema"; "" for
            pixels.
    """

    params: Any
    model: DiTConfig
    path: str
    kind: str
    class_names: tuple[str, ...]
    note: dict
    guided_channels: int = 0
    latents: str = ""


def save_weights(path: str | Path, weights: Weights, *, dtype: str = "float16") -> None:
    """Writes `weights` to one `.safetensors` file.

    Args:
        path: of the file; its folder is made if missing.
        weights: what to write.
        dtype: storage type of the parameters; float16, bfloat16 or float32.

    Raises:
        InputError: if `dtype` is unknown.
        NonFiniteError: if a value is NaN or infinite, or too large for `dtype`.
        UnwritableError: if the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "model": dataclasses.asdict(untuned(weights.model)),
        "path": weights.path,
        "kind": weights.kind,
        "class_names": list(weights.class_names),
        "note": weights.note,
        "guided_channels": weights.guided_channels,
        "latents": weights.latents,
    }
    params, unset = weights.params, _unset(weights.note)
    container.write("save_weights", path, about, params, dtype, unset=unset)


def load_weights(
    path: str | Path, *, dtype: str = "float32", place: Place | None = None
) -> Weights:
    """Reads a file of `save_weights`.

    Args:
        path: of the file.
        dtype: of the parameters, "float32", "bfloat16" or "float16". For sampling that
            of the computation: a network whose parameters have it already casts
            nothing at each step, and takes half of the memory in bfloat16.
        place: (dotted name, numpy array) -> `jax.Array`, for networks larger than one
            device: each array goes where it belongs as soon as it is read. None puts
            all on the default device.

    Raises:
        InputError: if the file is missing, was not written by `save_weights`, or says
            something else of the network than its arrays show.
        NonFiniteError: if a value is NaN or infinite.
    """
    owner = "load_weights"
    lookup(f"{owner} dtype", dtype, dict.fromkeys(DTYPES))
    named = {} if place is None else {"place": place}
    weights, params = container.read(
        owner, path, FORMAT, "save_weights", _meaning, dtype, **named
    )
    return weights._replace(params=params)


def _meaning(about: dict[str, Any]) -> header.Meaning:
    """What the header of a file means; the parameters are still missing."""
    model = header.architecture(DiTConfig, about, "model")
    names = header.field(about, "class_names", list, ...)
    path, kind, latents = (
        header.field(about, name, str, default)
        for name, default in (("path", ...), ("kind", ...), ("latents", ""))
    )
    guided = header.field(about, "guided_channels", int, 0)
    note = header.field(about, "note", dict, ...)
    lookup("header", path, PATHS)
    lookup("header", kind, dict.fromkeys(KINDS))
    if not 0 <= guided <= model.channels:
        raise InputError(
            f"header: need guided_channels from 0 to channels={model.channels}, got "
            f"guided_channels={guided!r}. Write the file anew."
        )
    if len(names) != model.num_classes or not all(isinstance(n, str) for n in names):
        raise InputError(
            f"header: need a class name for each of num_classes={model.num_classes}, "
            f"got {len(names)} class_names. Write the file anew."
        )
    weights = Weights({}, model, path, kind, tuple(names), note, guided, latents)
    return header.Meaning(
        made=weights,
        shown=functools.partial(by_dit, model),
        wanted=lambda names: shapes(model),
        unset=_unset(note),
    )


def shapes(model: DiTConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a DiT, under dotted names."""
    tree = parameter_shapes(init, model)
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep=".")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _unset(note: dict) -> dict[str, int]:
    """A table of labels without a row for "no class" has NaN there."""
    return {"label_table": 1} if note.get("null_row") is False else {}
