"""Where the arrays of a published DiT go in our parameters, array by array.

A layout is a list of placements: an array of theirs, the part of ours that it is, and
how the two lie to each other. The same list reads and writes. Parameters of blocks, one
array per block in theirs, are stacked in ours.

Source: facebookresearch/DiT@ed81ce2 and willisma/SiT@947f95b, models.py;
    sihyun-yu/REPA@67f7145, models/sit.py; Model-Guidance, whose network is REPA's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxguide.convert.tensors import Shape, Tensors, check, read
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig

# Embedders of numbers beside the time: that of scale-aware Model-Guidance.
EMBEDDERS = {"scale": "s_embedder"}


class Form(NamedTuple):
    """How an array of theirs lies in ours, and back."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray, Shape], np.ndarray]


class Placement(NamedTuple):
    """One array of theirs, and where it stands in ours.

    Attributes:
        name: theirs.
        shape: theirs.
        leaf: dotted name of ours.
        part: of that leaf.
        form: one of `FORMS`.
    """

    name: str
    shape: Shape
    leaf: str
    part: tuple[Any, ...]
    form: str


def _patches(kernel: np.ndarray) -> np.ndarray:
    """[width, C, p, p] -> [p p C, width]: the order of our patches."""
    # A convolution with stride p is a dense layer on patches, whose pixels we flatten
    # as (row, column, channel).
    return kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])


def _convolution(kernel: np.ndarray, shape: Shape) -> np.ndarray:
    width, channels, patch, _ = shape
    return kernel.reshape(patch, patch, channels, width).transpose(3, 2, 0, 1)


# By name, not by function: a placement stays data that can be compared and printed.
FORMS = {
    "same": Form(lambda a: a, lambda a, shape: a),
    "linear": Form(lambda a: a.T, lambda a, shape: a.T),
    "patches": Form(_patches, _convolution),
    # Velocities of a time that runs the other way.
    "negated": Form(lambda a: -a, lambda a, shape: -a),
    "negated linear": Form(lambda a: -a.T, lambda a, shape: -a.T),
}


def linear(
    name: str,
    leaf: str,
    inputs: int,
    outputs: int,
    *,
    block: int | None = None,
    columns: slice = slice(None),
    sign: str = "",
) -> list[Placement]:
    """Weight and bias of a dense layer, or of some columns of ours.

    Args:
        name: theirs, without ".weight".
        leaf: ours, without ".kernel".
        inputs, outputs: sizes of theirs.
        block: which one of the stack.
        columns: of ours.
        sign: "negated " or "".
    """
    at = () if block is None else (block,)
    weight = (*at, slice(None), columns)
    return [
        Placement(
            f"{name}.weight",
            (outputs, inputs),
            f"{leaf}.kernel",
            weight,
            f"{sign}linear",
        ),
        Placement(
            f"{name}.bias",
            (outputs,),
            f"{leaf}.bias",
            (*at, columns),
            sign.strip() or "same",
        ),
    ]


def patch_in(name: str, model: DiTConfig) -> list[Placement]:
    """The first layer, a convolution in theirs."""
    kernel = (model.width, model.channels, model.patch, model.patch)
    return [
        Placement(f"{name}.weight", kernel, "patch_in.kernel", (), "patches"),
        Placement(f"{name}.bias", (model.width,), "patch_in.bias", (), "same"),
    ]


def label_table(name: str, model: DiTConfig, rows: int) -> Placement:
    """The first `rows` rows of the table of labels."""
    part = (slice(0, rows),)
    return Placement(name, (rows, model.width), "label_table", part, "same")


def official(
    model: DiTConfig,
    *,
    sign: str = "",
    null_row: bool = True,
    block: Callable[[int], str] = "blocks.{}".format,
) -> list[Placement]:
    """The layout of DiT, SiT, REPA and MG.

    Args:
        model: the architecture.
        sign: "negated " if the last layer changes its sign (SiT's velocity).
        null_row: whether the table has a row for "no class".
        block: name of a block; legacy files of REPA have two series.
    """
    width, hidden = model.width, model.width * model.mlp_ratio
    outputs = model.patch**2 * model.out_channels
    rows, columns = model.grid
    placements = [
        Placement("pos_embed", (1, rows * columns, width), "pos_embed", (), "same"),
        *patch_in("x_embedder.proj", model),
        *linear("t_embedder.mlp.0", "time_in", 256, width),
        *linear("t_embedder.mlp.2", "time_out", width, width),
        label_table(
            "y_embedder.embedding_table.weight", model, model.num_classes + null_row
        ),
    ]
    for name in model.inputs:
        theirs = EMBEDDERS[name]
        placements += linear(f"{theirs}.mlp.0", f"{name}_in", 256, width)
        placements += linear(f"{theirs}.mlp.2", f"{name}_out", width, width)
    for i in range(model.depth):
        for part, leaf, inputs, size in (
            ("attn.qkv", "qkv", width, 3 * width),
            ("attn.proj", "out", width, width),
            ("mlp.fc1", "fc1", width, hidden),
            ("mlp.fc2", "fc2", hidden, width),
            ("adaLN_modulation.1", "modulation", width, 6 * width),
        ):
            name = f"{block(i)}.{part}"
            placements += linear(name, f"blocks.{leaf}", inputs, size, block=i)
    placements += linear("final_layer.linear", "patch_out", width, outputs, sign=sign)
    last = "final_layer.adaLN_modulation.1"
    return placements + linear(last, "modulation", width, 2 * width)


def legacy(encoder_depth: int) -> Callable[[int], str]:
    """Names of blocks in old files of REPA, which count twice from 0.

    >>> legacy(8)(7), legacy(8)(8)
    ('blocks.7', 'decoder_blocks.0')
    """

    def name(index: int) -> str:
        later = index - encoder_depth
        return f"blocks.{index}" if later < 0 else f"decoder_blocks.{later}"

    return name


def check_layout(
    owner: str,
    tensors: Tensors,
    placements: Sequence[Placement],
    ignore: Iterable[str] = (),
) -> None:
    """All names and shapes before the first value: an error costs no reading.

    Args:
        owner: the public name that an error begins with.
        tensors: theirs.
        placements: the layout.
        ignore: shell patterns of names of theirs that are not needed.

    Raises:
        InputError: if names, shapes or types are not those of the layout.
    """
    wanted = {placement.name: placement.shape for placement in placements}
    check(owner, tensors, wanted, tuple(ignore))


def fill(
    owner: str,
    tensors: Tensors,
    placements: Sequence[Placement],
    leaves: Mapping[str, np.ndarray],
) -> None:
    """Reads their arrays, one at a time, into ours; `check_layout` comes before.

    Args:
        owner: the public name that an error begins with.
        tensors: theirs.
        placements: the layout.
        leaves: ours, already of the right shapes; overwritten.

    Raises:
        InputError: if two arrays that are one part of ours (diffusers repeats some)
            differ.
        NonFiniteError: if a value is NaN or infinite, or too large for ours.
    """
    seen: dict[str, str] = {}
    for name, _, leaf, part, form in placements:
        target, place = leaves[leaf], f"{leaf}{part}"
        value = FORMS[form].ours(read(owner, tensors, name, target.dtype))
        # diffusers stores the embedders of time and label once per block; one copy
        # stands for all, but only if all are equal.
        if place not in seen:
            target[part] = value
            seen[place] = name
        elif not np.array_equal(target[part], value):
            raise InputError(
                f"{owner}: need {name} equal to {seen[place]}, got another in "
                f"path={tensors.path.name!r}. Our network has one such layer for all "
                "blocks, as the original DiT; so a file whose copies differ has no "
                "equal here."
            )


def gathered(
    placements: Sequence[Placement], leaves: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Their arrays, float32, by name, of ours: the inverse of `fill`."""
    host = {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}
    return {
        name: np.ascontiguousarray(FORMS[form].theirs(host[leaf][part], shape))
        for name, shape, leaf, part, form in placements
    }
