"""Where the arrays of diffusers' `DiTTransformer2DModel` go in our parameters.

Source: huggingface/diffusers 0.42, models/transformers/dit_transformer_2d.py: every
    block has its own embedders of time and label, and the last layer uses those of
    block 0; queries, keys and values are three layers; the table of positions is not
    stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide.convert.folders import read_json
from jaxguide.convert.layouts import Placement, label_table, linear, patch_in
from jaxguide.convert.tensors import Tensors, whole
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig
from jaxguide.models.written import write_arrays, write_text

# What our network is, in the words of their configuration.
ARCHITECTURE = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "norm_type": "ada_norm_zero",
}
SCHEDULER = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def placements(model: DiTConfig) -> list[Placement]:
    """The layout of an architecture."""
    width, hidden = model.width, model.width * model.mlp_ratio
    outputs = model.patch**2 * model.out_channels
    layout = patch_in("pos_embed.proj", model)
    for i in range(model.depth):
        name = f"transformer_blocks.{i}"
        # Every block's copy goes to the one place in ours; `fill` compares them.
        time = f"{name}.norm1.emb.timestep_embedder"
        layout += linear(f"{time}.linear_1", "time_in", 256, width)
        layout += linear(f"{time}.linear_2", "time_out", width, width)
        table = f"{name}.norm1.emb.class_embedder.embedding_table.weight"
        layout.append(label_table(table, model, model.num_classes + 1))
        # Three layers there, the three thirds of one layer here.
        for number, part in enumerate("qkv"):
            columns = slice(number * width, (number + 1) * width)
            layout += linear(
                f"{name}.attn1.to_{part}",
                "blocks.qkv",
                width,
                width,
                block=i,
                columns=columns,
            )
        for part, leaf, inputs, size in (
            ("attn1.to_out.0", "out", width, width),
            ("ff.net.0.proj", "fc1", width, hidden),
            ("ff.net.2", "fc2", hidden, width),
            ("norm1.linear", "modulation", width, 6 * width),
        ):
            layout += linear(f"{name}.{part}", f"blocks.{leaf}", inputs, size, block=i)
    layout += linear("proj_out_1", "modulation", width, 2 * width)
    return layout + linear("proj_out_2", "patch_out", width, outputs)


def sizes(tensors: Tensors) -> dict[str, Any]:
    """Heads and image size, which no array shows, from their `config.json`; 0 unknown.

    Raises:
        InputError: if it is another architecture.
    """
    config = tensors.config
    compare("config.json", config, ARCHITECTURE)
    return {
        "heads": whole(tensors, "num_attention_heads", 0),
        "image_size": whole(tensors, "sample_size", 0),
    }


def compare(name: str, config: dict, wanted: dict) -> None:
    """Raises InputError where a configuration of theirs contradicts what is wanted."""
    other = {k: config[k] for k in wanted if config.get(k, wanted[k]) != wanted[k]}
    if other:
        fitting = {key: wanted[key] for key in other}
        raise InputError(
            f"read_published: need {fitting} in {name}, got {other}. Only DiT as "
            "published can be read."
        )


def pipeline(folder: Path) -> tuple[str, ...]:
    """Class names of a whole pipeline, () if `folder` is none or gives none.

    Raises:
        InputError: if its scheduler is for another noise path than DiT's.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    compare("scheduler_config.json", scheduler, SCHEDULER)
    names = read_json(folder / "model_index.json").get("id2label") or {}
    labels = [str(label) for label in range(len(names))]
    sound = isinstance(names, dict) and set(labels) == set(names)
    if not sound or not all(isinstance(name, str) for name in names.values()):
        raise InputError(
            "read_published: need id2label of names by the labels '0', '1', ..., got "
            f"another in model_index.json of path={str(folder)!r}. Mend it."
        )
    ordered = [names[label] for label in labels]
    short = tuple(name.split(",")[0] for name in ordered)
    return short if len(set(short)) == len(short) else tuple(ordered)


def write_folder(
    owner: str, folder: Path, model: DiTConfig, arrays: dict[str, np.ndarray]
) -> None:
    """Writes what diffusers' `from_pretrained` loads.

    Raises:
        UnwritableError: if the folder cannot be written.
    """
    file = folder / "diffusion_pytorch_model.safetensors"
    write_arrays(owner, file, arrays, {"format": "pt"})
    write_text(
        owner, folder / "config.json", json.dumps(configuration(model), indent=2)
    )


def configuration(model: DiTConfig) -> dict[str, Any]:
    """Their `config.json` for an architecture of ours."""
    return {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": model.heads,
        "attention_head_dim": model.width // model.heads,
        "in_channels": model.channels,
        "out_channels": model.out_channels,
        "num_layers": model.depth,
        "sample_size": model.image_shape[0],
        "patch_size": model.patch,
        "num_embeds_ada_norm": model.num_classes,
        **ARCHITECTURE,
    }
