"""Weights that a run starts from, or is taught by: of its own kind, and finite."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.models import DiTConfig, Weights, load_weights

if TYPE_CHECKING:
    from jaxguide.train.loss_config import LossConfig


def read_teacher(config: LossConfig, model: DiTConfig) -> Weights:
    """The frozen network of a distillation.

    Raises:
        InputError: if there is none, or it does not predict what `model` shall.
    """
    if not config.teacher:
        raise InputError(
            "cfg_distillation: need a weights file, got teacher=''. "
            "Train one with flow_matching and set loss.teacher."
        )
    return read_alike("cfg_distillation", "teacher", config.teacher, config, model)


def read_alike(
    owner: str, name: str, file: str, config: LossConfig, model: DiTConfig
) -> Weights:
    """Weights of the architecture, path and kind of `model`; its inputs may be missing.

    Raises:
        InputError: if they are of another one, naming `owner` and the argument `name`.
    """
    weights = load_weights(file)
    ours = _architecture(model) | {"loss.path": config.path, "loss.kind": config.kind}
    theirs = _architecture(weights.model)
    theirs |= {"loss.path": weights.path, "loss.kind": weights.kind}
    if set(theirs["inputs"]) <= set(ours["inputs"]):
        theirs["inputs"] = ours["inputs"]
    other = [field for field in ours if ours[field] != theirs[field]]
    if other:
        here = ", ".join(f"{field}={ours[field]!r}" for field in other)
        there = ", ".join(f"{field}={theirs[field]!r}" for field in other)
        raise InputError(
            f"{owner}: need a {name} of the same architecture, path and kind, here "
            f"{here}, got {there} in {name}={str(file)!r}. Change the config "
            "(--config.FIELD=VALUE; shape and classes are those of the data) or the "
            "file."
        )
    _check_finite(owner, name, file, weights.params)
    return weights


# Fields of a network that change none of its parameters, beside those of the data.
_HOW = (
    "unroll",
    "head_multiple",
    "dtype",
    "remat",
    "image_size",
    "channels",
    "num_classes",
    "inputs",
)


def _architecture(model: DiTConfig) -> dict[str, Any]:
    """What two networks must have in common, by the names that a config gives it."""
    names = [f.name for f in dataclasses.fields(DiTConfig) if f.name not in _HOW]
    return {
        "image_shape": model.image_shape,
        "num_classes": model.num_classes,
        "inputs": model.inputs,
        **{f"model.{name}": getattr(model, name) for name in names},
    }


def _check_finite(owner: str, name: str, file: str, params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            array = ".".join(str(getattr(entry, "key", entry)) for entry in path)
            raise NonFiniteError(
                f"{owner}: need finite weights, got NaN or infinite values of {array} "
                f"in {name}={str(file)!r}. Use another file; a table of labels without "
                "a row for no class cannot be trained from."
            )
