"""What the shapes of arrays show of the architecture that a header names."""

from __future__ import annotations

import math
import re
from typing import Any

from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.dit_config import DiTConfig
from jaxguide.models.header import Shapes, Shown
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig


def by_dit(config: DiTConfig, shapes: Shapes) -> list[Shown]:
    """Fields of a DiT: all but the heads, which no shape shows.

    Args:
        config: what the header says.
        shapes: of the arrays, by dotted name.
    """
    area, table = config.patch**2, "label_table"
    rows, width = _axis(shapes, table, 0), _axis(shapes, table, 1)
    hidden = _axis(shapes, "blocks.fc1.kernel", -1)
    taken = {name[: -len("_in.kernel")] for name in shapes if _IN.fullmatch(name)}
    return [
        Shown("width", config.width, width),
        Shown("num_classes", config.num_classes, rows and rows - 1),
        Shown("depth", config.depth, _axis(shapes, "blocks.qkv.kernel", 0)),
        Shown("width * mlp_ratio", config.width * config.mlp_ratio, hidden),
        Shown(
            "patch^2 * channels",
            area * config.channels,
            _axis(shapes, "patch_in.kernel", 0),
        ),
        Shown(
            "outputs of a patch (learn_sigma doubles them)",
            area * config.out_channels,
            _axis(shapes, "patch_out.kernel", -1),
        ),
        Shown(
            "patches of an image", math.prod(config.grid), _axis(shapes, "pos_embed", 1)
        ),
        Shown("inputs", sorted(config.inputs), sorted(taken)),
    ]


def by_kl(config: AutoencoderKLConfig, shapes: Shapes) -> list[Shown]:
    """Fields of an AutoencoderKL, of the halves that are there.

    Args:
        config: what the header says.
        shapes: of the arrays, by dotted name.
    """
    return [
        one
        for half in _halves(shapes)
        for one in (_kl_encoder if half == "encoder" else _kl_decoder)(config, shapes)
    ]


def by_tiny(config: TinyAutoencoderConfig, shapes: Shapes) -> list[Shown]:
    """Fields of a tiny autoencoder, of the halves that are there.

    Args:
        config: what the header says.
        shapes: of the arrays, by dotted name.
    """
    found = []
    for half in _halves(shapes):
        ends = (config.channels, config.latent_channels)
        first, last = ends if half == "encoder" else ends[::-1]
        blocks = getattr(config, f"{half}_blocks")
        found += [
            Shown(
                f"{half} input channels",
                first,
                _axis(shapes, f"{half}.conv_in.kernel", 2),
            ),
            Shown("width", config.width, _axis(shapes, f"{half}.conv_in.kernel", 3)),
            Shown(
                f"{half} output channels",
                last,
                _axis(shapes, f"{half}.conv_out.kernel", 3),
            ),
            Shown(f"{half}_blocks", blocks, _blocks(shapes, half)),
        ]
    return found


_IN = re.compile(r"(?!patch|time)\w+_in\.kernel")


def _kl_encoder(config: AutoencoderKLConfig, shapes: Shapes) -> list[Shown]:
    return [
        Shown(
            "in_channels",
            config.in_channels,
            _axis(shapes, "encoder.conv_in.kernel", 2),
        ),
        Shown("widths", config.widths, _widths(shapes, "encoder")),
        Shown(
            "2 * latent_channels",
            2 * config.latent_channels,
            _axis(shapes, "encoder.conv_out.kernel", 3),
        ),
        Shown("layers", config.layers, _count(shapes, "encoder.stage_0.block_")),
        Shown("quant_conv", config.quant_conv, "encoder.quant.kernel" in shapes),
        _attention(config, shapes, "encoder"),
    ]


def _kl_decoder(config: AutoencoderKLConfig, shapes: Shapes) -> list[Shown]:
    widths = _widths(shapes, "decoder")
    layers = _count(shapes, "decoder.stage_0.block_")
    return [
        Shown(
            "latent_channels",
            config.latent_channels,
            _axis(shapes, "decoder.conv_in.kernel", 2),
        ),
        Shown("widths", config.widths, widths and widths[::-1]),
        Shown(
            "out_channels",
            config.out_channels,
            _axis(shapes, "decoder.conv_out.kernel", 3),
        ),
        Shown("layers", config.layers, layers and layers - 1),
        Shown(
            "post_quant_conv", config.post_quant_conv, "decoder.quant.kernel" in shapes
        ),
        _attention(config, shapes, "decoder"),
    ]


def _attention(config: AutoencoderKLConfig, shapes: Shapes, half: str) -> Shown:
    there = f"{half}.middle.attention.query.kernel" in shapes
    return Shown("mid_attention", config.mid_attention, there)


def _halves(shapes: Shapes) -> list[str]:
    """The halves of an autoencoder that have arrays; both if none has."""
    there = {name.split(".")[0] for name in shapes}
    halves = ["encoder", "decoder"]
    return [half for half in halves if half in there] or halves


def _axis(shapes: Shapes, name: str, axis: int) -> int | None:
    """Length of one axis of an array; None if it is not there."""
    shape = shapes.get(name, ())
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _count(shapes: Shapes, prefix: str) -> int | None:
    """How many numbers follow `prefix` in the names."""
    found = {
        name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)
    }
    return len(found) or None


def _widths(shapes: Shapes, half: str) -> tuple[Any, ...] | None:
    """Channels of the stages, in the order in which they run; None if some lack."""
    number = _count(shapes, f"{half}.stage_") or 0
    names = [f"{half}.stage_{i}.block_0.conv1.kernel" for i in range(number)]
    widths = tuple(_axis(shapes, name, 3) for name in names)
    return widths if widths and None not in widths else None


def _blocks(shapes: Shapes, half: str) -> tuple[int, ...]:
    """Blocks of the stages, in the order in which they run."""
    between = _count(shapes, f"{half}.{'halve' if half == 'encoder' else 'double'}_")
    number = 1 + (between or 0)
    return tuple(_count(shapes, f"{half}.stage_{i}.block_") or 0 for i in range(number))
