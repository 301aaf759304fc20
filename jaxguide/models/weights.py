"""Weights to share: one safetensors file that says what it is.

The file holds the (averaged) parameters in half precision under dotted names, and
one JSON text in its metadata: architecture, path, kind of prediction, class names and
a note. It can be read without this package, and reading it runs no code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from jaxguide.models import DiTConfig, container

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
        OSError: if the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "model": dataclasses.asdict(weights.model),
        "path": weights.path,
        "kind": weights.kind,
        "class_names": list(weights.class_names),
        "note": weights.note,
        "guided_channels": weights.guided_channels,
        "latents": weights.latents,
    }
    container.write("save_weights", path, about, weights.params, dtype)


def load_weights(path: str | Path) -> Weights:
    """Reads a file of `save_weights`; parameters come back as float32.

    Raises:
        InputError: if the file is missing or was not written by `save_weights`.
    """
    about, params = container.read("load_weights", path, FORMAT, "save_weights")
    model = dict(about["model"])
    size = model["image_size"]
    model["image_size"] = tuple(size) if isinstance(size, list) else size
    model["inputs"] = tuple(model.get("inputs", ()))
    return Weights(
        params=params,
        model=DiTConfig(**model),
        path=about["path"],
        kind=about["kind"],
        class_names=tuple(about["class_names"]),
        note=about["note"],
        guided_channels=about.get("guided_channels", 0),
        latents=about.get("latents", ""),
    )
