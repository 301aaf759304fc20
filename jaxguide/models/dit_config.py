"""The sizes of DiT/SiT: one frozen dataclass, the published presets, and the cost."""

from __future__ import annotations

import dataclasses
import difflib
import sys

import numpy as np

from jaxguide.errors import InputError
from jaxguide.runtime.devices import DTYPES

# name: (width, depth, heads)
SIZES = {
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
PATCHES = (2, 4, 8)
REMATS = (False, True, "none", "full", "dots")
# Numbers that a network may take beside the time: the factor before the sine features.
INPUT_UNITS = {"scale": 1.0, "beta": 1000.0, "duration": 1000.0}


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Architecture of one network.

    Args:
        image_size: edge in pixels (or latent cells), or (height, width).
        channels: channels C of the input.
        patch: edge of one token in pixels; divides the image size.
        width: features per token; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.
        num_classes: classes; the label `num_classes` means "no class".
        learn_sigma: return 2C channels, the second half for a learned variance.
        time_scale, time_offset: the network is fed `time_scale * t + time_offset`.
            With t in [0, 1], a scale of 1000 uses the whole range of the sine
            features. Official DiT: 1000 and -1, its timesteps 0..999; official SiT: -1
            and 1, as its time runs from noise to data; REPA and MG: 1 and 0.
        downscale_freq_shift: 0 as published, 1 for weights made with diffusers.
        mlp_ratio: hidden features of the MLP over `width`.
        dtype: of the computation; parameters stay float32.
        inputs: numbers per image that the network takes as further conditions, of
            "scale", "beta" and "duration"; what they mean is the business of the loss.
        remat: what the backward pass of a block computes again, to keep less memory:
            "none", "full" (all of it: only the tokens between blocks are kept) or
            "dots" (all but the products with weights, which are kept). False is
            "none", True is "full".
        unroll: the blocks one after the other in the program, not in a loop. It
            compiles longer; on a GPU with few images it is faster, as a loop copies
            the weights of every block before it uses them.
        head_multiple: heads are filled up with zeros to a multiple of so many features
            inside of attention. 128 on a TPU, whose kernel would do it by copies; it
            changes no result beyond rounding.

    Raises:
        InputError: if a number is out of range or does not divide as described.
    """

    image_size: int | tuple[int, int]
    channels: int
    patch: int
    width: int
    depth: int
    heads: int
    num_classes: int
    learn_sigma: bool = False
    time_scale: float = 1000.0
    time_offset: float = 0.0
    downscale_freq_shift: float = 0.0
    mlp_ratio: int = 4
    dtype: str = "float32"
    inputs: tuple[str, ...] = ()
    remat: bool | str = False
    unroll: bool = False
    head_multiple: int = 1

    def __post_init__(self):
        for name in (
            "channels",
            "patch",
            "width",
            "depth",
            "heads",
            "mlp_ratio",
            "head_multiple",
        ):
            self._need(getattr(self, name) >= 1, name, ">= 1")
        self._need(self.num_classes >= 0, "num_classes", ">= 0")
        whole = all(isinstance(edge, int | np.integer) for edge in self._edges)
        self._need(whole, "image_size", "an integer or two")
        divisible = all(edge > 0 and edge % self.patch == 0 for edge in self._edges)
        self._need(divisible, "image_size", f"divisible by patch={self.patch}")
        fits = self.width % self.heads == 0 and self.width % 4 == 0
        self._need(fits, "width", f"a multiple of 4 and of heads={self.heads}")
        self._need(self.dtype in DTYPES, "dtype", f"in {DTYPES}")
        for name in ("time_scale", "time_offset", "downscale_freq_shift"):
            finite = abs(getattr(self, name)) <= sys.float_info.max
            self._need(finite, name, "finite")
        self._need(self.remat in REMATS, "remat", f"in {REMATS}")
        known = set(self.inputs) <= set(INPUT_UNITS)
        self._need(known, "inputs", f"of {tuple(INPUT_UNITS)}")

    def _need(self, holds: bool, name: str, condition: str) -> None:
        if not holds:
            raise InputError(
                f"DiTConfig: need {name} {condition}, got "
                f"{name}={getattr(self, name)!r}. Change {name}."
            )

    @property
    def _edges(self) -> tuple[int, int]:
        size = self.image_size
        return size if isinstance(size, tuple) and len(size) == 2 else (size, size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one input: height, width, channels."""
        return (*self._edges, self.channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        height, width = self._edges
        return height // self.patch, width // self.patch

    @property
    def out_channels(self) -> int:
        """Channels that the network returns."""
        return self.channels * (2 if self.learn_sigma else 1)

    @property
    def takes_scale(self) -> bool:
        """Whether the network takes a scale of guidance, or its inverse."""
        return bool({"scale", "beta"} & set(self.inputs))

    @property
    def null_label(self) -> int:
        """The label that means "no class"."""
        return self.num_classes


def dit_config(
    name: str,
    *,
    image_size: int | tuple[int, int] = 32,
    channels: int = 4,
    num_classes: int = 1000,
    **fields,
) -> DiTConfig:
    """A published size: S, B, L or XL, with patch 2, 4 or 8.

    Args:
        name: for example "XL/2".
        image_size: edge of the input; 32 for latents of 256-pixel images.
        channels: channels of the input.
        num_classes: classes, without the "no class" row.
        **fields: further fields of `DiTConfig`.

    Raises:
        InputError: if the name is unknown.

    >>> dit_config("S/2").depth
    12
    """
    known = {f"{size}/{patch}": (size, patch) for size in SIZES for patch in PATCHES}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(
            f"dit_config: need a name in {sorted(known)}, got name={name!r}. "
            f"Did you mean {near!r}?"
        )
    size, patch = known[name]
    width, depth, heads = SIZES[size]
    return DiTConfig(
        image_size=image_size,
        channels=channels,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        num_classes=num_classes,
        **fields,
    )


def flops(config: DiTConfig) -> tuple[int, int]:
    """Cost of one forward pass, 2 FLOPs per multiply-add; matrix products only.

    Args:
        config: the architecture.

    Returns:
        `(total, block)`: FLOPs per image of the whole network, and of one block;
        a pass that runs k blocks costs `total - (depth - k) * block`.
    """
    rows, columns = config.grid
    tokens, width = rows * columns, config.width
    area = config.patch**2
    dense = tokens * (4 + 2 * config.mlp_ratio) * width**2
    block = dense + 2 * tokens**2 * width + 6 * width**2
    ends = tokens * width * area * (config.channels + config.out_channels)
    condition = 256 * width + 3 * width**2
    return 2 * (config.depth * block + ends + condition), 2 * block
