"""The architecture of a published DiT, as the shapes of its arrays show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxguide.convert.layouts import EMBEDDERS
from jaxguide.convert.tensors import Shape, Tensors
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig
from jaxguide.models.dit_config import SIZES
from jaxguide.models.looks import few, hint

# Of a latent of a picture of 8192 pixels; the table of positions is made in full.
MOST_PATCHES = 2**20
# No array shows the number of heads: the layers of queries, keys and values have the
# same shape for any.
HEADS = {width: heads for width, _, heads in SIZES.values()}


class Landmarks(NamedTuple):
    """Arrays whose shapes show an architecture.

    Attributes:
        patch: kernel of the first convolution.
        table: of labels.
        hidden: first layer of the MLP in the first block.
        last: the last layer.
        blocks: names of the series of blocks.
        positions: the table of positions; "" where none is stored.
    """

    patch: str
    table: str
    hidden: str
    last: str
    blocks: tuple[str, ...]
    positions: str = ""


OFFICIAL = Landmarks(
    "x_embedder.proj.weight",
    "y_embedder.embedding_table.weight",
    "blocks.0.mlp.fc1.weight",
    "final_layer.linear.weight",
    ("blocks",),
    "pos_embed",
)
LEGACY = OFFICIAL._replace(blocks=("blocks", "decoder_blocks"))
DIFFUSERS = Landmarks(
    "pos_embed.proj.weight",
    "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
    "transformer_blocks.0.ff.net.0.proj.weight",
    "proj_out_2.weight",
    ("transformer_blocks",),
)


class Architecture(NamedTuple):
    """What the shapes say.

    Attributes:
        model: with the default time.
        rows: of the table of labels.
        series: number of blocks in each series.
    """

    model: DiTConfig
    rows: int
    series: tuple[int, ...]


def infer(
    tensors: Tensors,
    landmarks: Landmarks,
    *,
    heads: int = 0,
    image_size: int = 0,
    num_classes: int = 0,
) -> Architecture:
    """The architecture of a file.

    Args:
        tensors: the file.
        landmarks: of its layout.
        heads: 0 takes those of the published widths.
        image_size: edge; 0 takes a square of all positions.
        num_classes: 0 takes one less than the table of labels has rows.

    Raises:
        InputError: if the file has not these arrays, or does not show a number that
            was not given.
    """
    width, channels, patch, _ = _shape(tensors, landmarks.patch, 4)
    rows = _shape(tensors, landmarks.table, 2)[0]
    hidden = _shape(tensors, landmarks.hidden, 2)[0]
    outputs = _shape(tensors, landmarks.last, 2)[0] / max(patch**2 * channels, 1)
    series = tuple(_count(tensors.names, name) for name in landmarks.blocks)
    fields: dict[str, Any] = {
        "image_size": image_size or _edge(tensors, landmarks, patch),
        "channels": channels,
        "patch": patch,
        "width": width,
        "depth": sum(series),
        "heads": heads or _heads(tensors, width),
        "num_classes": _classes(tensors, rows, num_classes),
        "learn_sigma": _twice(tensors, landmarks, outputs),
        "mlp_ratio": _ratio(tensors, landmarks, hidden, width),
        "inputs": tuple(
            name
            for name, theirs in EMBEDDERS.items()
            if f"{theirs}.mlp.0.weight" in tensors.names
        ),
    }
    return Architecture(_model(tensors, fields), rows, series)


def _model(tensors: Tensors, fields: dict[str, Any]) -> DiTConfig:
    """The architecture of these fields.

    Raises:
        InputError: if there is none, or its table of positions has no measure.
    """
    try:
        model = DiTConfig(**fields)
    except InputError as error:
        raise InputError(
            f"read_published: need an architecture that can be, got "
            f"path={tensors.path.name!r}: {error}"
        ) from error
    if math.prod(model.grid) > MOST_PATCHES:
        raise InputError(
            f"read_published: need at most {MOST_PATCHES:,} patches, got "
            f"image_size={model.image_size!r} for path={tensors.path.name!r}. Give the "
            "edge of the latents, such as 32."
        )
    return model


def _shape(tensors: Tensors, name: str, rank: int) -> Shape:
    if name in tensors.names and len(tensors.shape(name)) == rank:
        return tensors.shape(name)
    advice = hint(tensors.names) or f"It has {few(tensors.names)}."
    raise InputError(
        f"read_published: need an array {name} of {rank} axes, got none in "
        f"path={tensors.path.name!r}. {advice}"
    )


def _count(names: Sequence[str], series: str) -> int:
    """How many blocks are called `series`.0, `series`.1, ..."""
    parts = (name.split(".") for name in names)
    return len({part[1] for part in parts if part[0] == series and len(part) > 2})


def _edge(tensors: Tensors, landmarks: Landmarks, patch: int) -> int:
    """Edge of a square image with as many patches as there are positions."""
    # A count of patches shows one edge only if the image is square.
    stored = landmarks.positions in tensors.names
    count = _shape(tensors, landmarks.positions, 3)[1] if stored else 0
    if not count or math.isqrt(count) ** 2 != count:
        raise InputError(
            f"read_published: need image_size for path={tensors.path.name!r}, got "
            f"image_size=0 and {count} positions. Give the edge of the latents, "
            "such as 32."
        )
    return math.isqrt(count) * patch


def _heads(tensors: Tensors, width: int) -> int:
    if width not in HEADS:
        raise InputError(
            f"read_published: need heads for width {width}, got heads=0 for "
            f"path={tensors.path.name!r}. Published are the widths {sorted(HEADS)}."
        )
    return HEADS[width]


def _classes(tensors: Tensors, rows: int, wanted: int) -> int:
    if wanted and wanted not in (rows - 1, rows):
        raise InputError(
            f"read_published: need num_classes {rows - 1} or {rows}, as many as the "
            f"labels of path={tensors.path.name!r}, got num_classes={wanted!r}."
        )
    return wanted or rows - 1


def _ratio(tensors: Tensors, landmarks: Landmarks, hidden: int, width: int) -> int:
    if not width or hidden % width:
        raise InputError(
            f"read_published: need {landmarks.hidden} with a multiple of width {width} "
            f"outputs, got {hidden} in path={tensors.path.name!r}."
        )
    return hidden // width


def _twice(tensors: Tensors, landmarks: Landmarks, outputs: float) -> bool:
    """Whether the network returns two numbers for every one that it takes."""
    if outputs not in (1, 2):
        raise InputError(
            f"read_published: need {landmarks.last} with 1 or 2 outputs per input, "
            f"got {outputs:.3g} in path={tensors.path.name!r}."
        )
    return outputs == 2
