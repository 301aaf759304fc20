"""EfficientNet-Lite0: a small image classifier whose features measure other images.

    x = stem(x);  x = block(x), 16 times;  pool = mean(head(x));  logits = linear(pool)
    block:  x -> relu6(1x1, wider) -> relu6(depthwise) -> 1x1  (+ x where shapes agree)

Batch norm is part of the convolutions here: `convert.feature_networks` folds it in
when weights are read. The network takes images of any size.

Source: Tan & Le 2019, arXiv:1905.11946, Table 1, with the changes of EfficientNet-Lite
    (no squeeze-and-excite, ReLU6, fixed stem and head).
Differs from the source: inference only, batch norm folded.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxguide.errors import InputError
from jaxguide.models.dit import Params

FEATURES, CLASSES = 1280, 1000
STEM = 32
EXACT = lax.Precision.HIGHEST


class Stage(NamedTuple):
    """Blocks of one kind; only the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def block_stages() -> list[Stage]:
    """One row for every block, in order, each with `repeats` 1.

    >>> len(block_stages()), sum(stage.stride == 2 for stage in block_stages())
    (16, 4)
    """
    return [
        stage._replace(repeats=1, stride=stage.stride if index == 0 else 1)
        for stage in STAGES
        for index in range(stage.repeats)
    ]


def depthwise(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolves every channel with a kernel of its own, padded as TensorFlow's SAME.

    On CPU this is a sum of shifted products, several times faster there than the
    grouped convolution of XLA, which other devices use.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C].
        stride: of rows and columns.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), C].
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_shifted, stride=stride),
        default=functools.partial(_grouped, stride=stride),
    )


def _grouped(x: Array, kernel: Array, *, stride: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=EXACT,
    )


def _shifted(x: Array, kernel: Array, *, stride: int) -> Array:
    edges, strides = kernel.shape[:2], (stride, stride)
    pads = lax.padtype_to_pads(x.shape[1:3], edges, strides, "SAME")
    rows, columns = (-(-size // stride) for size in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))

    def shifted(row: int, column: int) -> Array:
        down = slice(row, row + stride * (rows - 1) + 1, stride)
        right = slice(column, column + stride * (columns - 1) + 1, stride)
        return padded[:, down, right] * kernel[None, row, column, None, None]

    places = [(row, column) for row in range(edges[0]) for column in range(edges[1])]
    return sum((shifted(*place) for place in places[1:]), shifted(*places[0]))


class Depthwise(nnx.Module):
    """A depthwise convolution with bias."""

    def __init__(self, channels: int, edge: int, stride: int, rngs: nnx.Rngs):
        draw = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = draw(rngs.params(), (edge * edge, channels))
        self.stride = stride
        self.kernel = nnx.Param(kernel.reshape(edge, edge, channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B, H / stride, W / stride, C]."""
        return (
            depthwise(x, self.kernel[...], self.stride)
            + self.bias[...][None, None, None]
        )


class Block(nnx.Module):
    """Widens, filters every channel, narrows; adds its input where shapes agree."""

    def __init__(self, channels: int, stage: Stage, rngs: nnx.Rngs):
        width = channels * stage.expansion
        self.residual = stage.stride == 1 and channels == stage.features
        self.wider = stage.expansion > 1
        if self.wider:
            self.expand = _pointwise(channels, width, rngs)
        self.depthwise = Depthwise(width, stage.kernel, stage.stride, rngs)
        self.project = _pointwise(width, stage.features, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] to [B, H / stride, W / stride, features]."""
        wide = jax.nn.relu6(self.expand(x)) if self.wider else x
        out = self.project(jax.nn.relu6(self.depthwise(wide)))
        return out + x if self.residual else out


class EfficientNetLite0(nnx.Module):
    """The network as a Flax module; most code uses `apply` instead.

    Args:
        rngs: stream `params` for the initial weights.
    """

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(
            3, STEM, (3, 3), strides=2, padding="SAME", precision=EXACT, rngs=rngs
        )
        channels = STEM
        for index, stage in enumerate(block_stages()):
            setattr(self, f"block{index}", Block(channels, stage, rngs))
            channels = stage.features
        self.head = _pointwise(channels, FEATURES, rngs)
        self.classes = nnx.Linear(FEATURES, CLASSES, precision=EXACT, rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """See `apply`."""
        x = jax.nn.relu6(self.stem(x))
        for index in range(len(block_stages())):
            x = getattr(self, f"block{index}")(x)
        pool = jax.nn.relu6(self.head(x)).mean(axis=(1, 2))
        return pool, self.classes(pool)


def init(key: Array) -> Params:
    """Random parameters; the trained ones come from `convert.feature_networks`."""
    network = EfficientNetLite0(nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


def apply(params: Params, x: Array) -> tuple[Array, Array]:
    """Features and logits; a pure function.

    Args:
        params: as `init` makes them.
        x: float32 [B, H, W, 3], (value - 127) / 128 of values 0 .. 255. Trained at 224
            pixels; any other size works.

    Returns:
        The pooled features [B, 1280], and the logits [B, 1000] of ImageNet's classes.

    Raises:
        InputError: if `x` has another shape.
    """
    if x.ndim != 4 or x.shape[-1] != 3:
        raise InputError(
            f"apply: need x [B, H, W, 3], got x={list(x.shape)!r}. Channels come last."
        )
    return nnx.merge(nnx.graphdef(_blank()), params)(x)


def shapes() -> Params:
    """Parameters like those of `init`, as shapes without values."""
    return nnx.to_pure_dict(nnx.state(_blank(), nnx.Param))


@functools.lru_cache(maxsize=1)
def _blank() -> EfficientNetLite0:
    """The module without values: its static half is what `nnx.merge` needs."""
    return nnx.eval_shape(lambda: EfficientNetLite0(nnx.Rngs(params=0)))


def _pointwise(channels: int, features: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1 x 1 convolution; on CPU a matrix product is the faster way to write it."""
    draw = nnx.initializers.he_normal()
    return nnx.Linear(channels, features, kernel_init=draw, precision=EXACT, rngs=rngs)
