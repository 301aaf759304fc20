"""Inception-v3 of 2015-12-05: the network whose features FID compares.

    x = stem(x);  x = block(x) for 11 blocks;  pool = mean(x)
    block:  concatenate(branch(x) for every branch), each branch convolutions and pools

The layers are a table, under the names of the published PyTorch files. Batch norm is
part of the convolutions: `convert.feature_networks` folds it in when weights are
read. Average pools count no padding, and the last block has a maximum pool: so it is
in the file of 2015, against the paper and later versions.

Source: Szegedy et al. 2016, arXiv:1512.00567; the graph `inception-2015-12-05` that
    Heusel et al. 2017, arXiv:1706.08500, measure with.
Differs from the source: inference only, batch norm folded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxguide.errors import InputError
from jaxguide.models.dit import Params

FEATURES, CLASSES = 2048, 1008
# The spatial features of sFID: so many channels of this layer, at all its places.
SPATIAL_LAYER, SPATIAL_CHANNELS = "Mixed_6d", 7
# FID is compared to several digits: TF32 or bfloat16 products would show in them.
EXACT = lax.Precision.HIGHEST


class Conv(NamedTuple):
    """A convolution with bias and ReLU."""

    name: str
    features: int
    rows: int = 1
    columns: int = 1
    stride: int = 1
    padding: str = "SAME"


class Pool(NamedTuple):
    """The maximum or the average of 3 x 3 places; an average counts no padding."""

    name: str
    stride: int = 1
    padding: str = "SAME"


# One that is a tuple is a fork: its branches are concatenated.
Layer = Conv | Pool | tuple
Layers = tuple[Layer, ...]
AVERAGE, MAXIMUM = Pool("average"), Pool("maximum")
HALVE = Pool("maximum", 2, "VALID")


def _ahead(name: str, features: int, *, stride: int = 1) -> Conv:
    """3 x 3 without padding."""
    return Conv(name, features, 3, 3, stride, "VALID")


def _block_a(pooled: int) -> tuple[Layers, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5, 5)),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            Conv("branch3x3dbl_3", 96, 3, 3),
        ),
        (AVERAGE, Conv("branch_pool", pooled)),
    )


def _block_b() -> tuple[Layers, ...]:
    return (
        (_ahead("branch3x3", 384, stride=2),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, 3, 3),
            _ahead("branch3x3dbl_3", 96, stride=2),
        ),
        (HALVE,),
    )


def _block_c(width: int) -> tuple[Layers, ...]:
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", width),
            Conv("branch7x7_2", width, 1, 7),
            Conv("branch7x7_3", 192, 7, 1),
        ),
        (
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, 7, 1),
            Conv("branch7x7dbl_3", width, 1, 7),
            Conv("branch7x7dbl_4", width, 7, 1),
            Conv("branch7x7dbl_5", 192, 1, 7),
        ),
        (AVERAGE, Conv("branch_pool", 192)),
    )


def _block_d() -> tuple[Layers, ...]:
    return (
        (Conv("branch3x3_1", 192), _ahead("branch3x3_2", 320, stride=2)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, 1, 7),
            Conv("branch7x7x3_3", 192, 7, 1),
            _ahead("branch7x7x3_4", 192, stride=2),
        ),
        (HALVE,),
    )


def _block_e(pool: Pool) -> tuple[Layers, ...]:
    def fork(prefix: str) -> tuple[Layers, ...]:
        across, down = Conv(f"{prefix}a", 384, 1, 3), Conv(f"{prefix}b", 384, 3, 1)
        return ((across,), (down,))

    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), fork("branch3x3_2")),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3, 3),
            fork("branch3x3dbl_3"),
        ),
        (pool, Conv("branch_pool", 192)),
    )


STEM: Layers = (
    _ahead("Conv2d_1a_3x3", 32, stride=2),
    _ahead("Conv2d_2a_3x3", 32),
    Conv("Conv2d_2b_3x3", 64, 3, 3),
    HALVE,
    Conv("Conv2d_3b_1x1", 80),
    _ahead("Conv2d_4a_3x3", 192),
    HALVE,
)
BLOCKS: dict[str, tuple[Layers, ...]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e(AVERAGE),
    "Mixed_7c": _block_e(MAXIMUM),
}


def convolutions() -> Iterator[tuple[str, ...]]:
    """The place of every convolution in the parameters.

    >>> len(list(convolutions()))
    94
    """

    def inside(layer: Layer) -> Iterator[str]:
        if isinstance(layer, Conv):
            yield layer.name
        elif not isinstance(layer, Pool):
            for part in layer:
                yield from inside(part)

    yield from ((name,) for name in inside((STEM,)))
    for block, branches in BLOCKS.items():
        yield from ((block, name) for name in inside(branches))


def graph_names() -> dict[tuple[str, ...], str]:
    """Place of every convolution: its name in TensorFlow's graph of 2015.

    >>> graph_names()["Mixed_6d", "branch1x1"], graph_names()["Mixed_7c", "branch_pool"]
    ('mixed_6/conv', 'mixed_10/tower_2/conv')
    """

    def numbered(name: str, index: int) -> str:
        return f"{name}_{index}" if index else name

    def walk(layers: Layers, scope: str) -> Iterator[tuple[str, str]]:
        # TensorFlow numbers operations of one scope in the order they were made, and
        # leaves the number of the first one out; pools do not count.
        convs = [layer for layer in layers if isinstance(layer, Conv)]
        for index, conv in enumerate(convs):
            yield conv.name, scope + numbered("conv", index)
        for fork in (layer for layer in layers if not isinstance(layer, Conv | Pool)):
            yield from walk(sum(fork, ()), f"{scope}mixed/")

    names = {(name,): graph for name, graph in walk(STEM, "")}
    for number, (block, branches) in enumerate(BLOCKS.items()):
        scope, towers = numbered("mixed", number) + "/", 0
        for branch in branches:
            # A branch of one layer has no scope of its own there.
            if len(branch) > 1:
                inner, towers = f"{scope}{numbered('tower', towers)}/", towers + 1
            else:
                inner = scope
            names |= {(block, name): graph for name, graph in walk(branch, inner)}
    return names


class Stack(nnx.Module):
    """Convolutions and pools one after the other, or side by side."""

    def __init__(self, channels: int, layers: Layers, rngs: nnx.Rngs):
        self.layers = layers
        self.channels = self._make(channels, layers, rngs)

    def run(self, x: Array) -> Array:
        """[B, H, W, channels] through all layers."""
        return self._through(x, self.layers)

    def _make(self, channels: int, layers: Layers, rngs: nnx.Rngs) -> int:
        """Makes the convolutions under their names; returns the channels at the end."""
        for layer in layers:
            if isinstance(layer, Conv):
                setattr(self, layer.name, _conv(channels, layer, rngs))
                channels = layer.features
            elif not isinstance(layer, Pool):
                channels = sum(self._make(channels, part, rngs) for part in layer)
        return channels

    def _through(self, x: Array, layers: Layers) -> Array:
        for layer in layers:
            x = self._layer(x, layer)
        return x

    def _layer(self, x: Array, layer: Layer) -> Array:
        if isinstance(layer, Conv):
            return jax.nn.relu(getattr(self, layer.name)(x))
        if isinstance(layer, Pool):
            return _pool(x, layer)
        return jnp.concatenate([self._through(x, part) for part in layer], axis=-1)


class Inception(Stack):
    """The network as a Flax module; most code uses `apply` instead.

    Args:
        rngs: stream `params` for the initial weights.
    """

    def __init__(self, rngs: nnx.Rngs):
        super().__init__(3, STEM, rngs)
        channels = self.channels
        for name, branches in BLOCKS.items():
            block = Stack(channels, (branches,), rngs)
            setattr(self, name, block)
            channels = block.channels
        self.classes = nnx.Linear(FEATURES, CLASSES, precision=EXACT, rngs=rngs)

    def __call__(self, x: Array) -> dict[str, Array]:
        """See `layers`."""
        outputs = {"stem": self.run(x)}
        x = outputs["stem"]
        for name in BLOCKS:
            x = outputs[name] = getattr(self, name).run(x)
        # All are returned: under `jit`, XLA drops what the caller does not use.
        outputs["pool"] = x.mean(axis=(1, 2))
        spatial = outputs[SPATIAL_LAYER][..., :SPATIAL_CHANNELS]
        outputs["spatial"] = spatial.reshape(len(x), -1)
        outputs["logits"] = self.classes(outputs["pool"])
        # Published Inception Scores leave the bias of this layer out.
        kernel = self.classes.kernel[...]
        outputs["logits_unbiased"] = jnp.dot(outputs["pool"], kernel, precision=EXACT)
        return outputs


def init(key: Array) -> Params:
    """Random parameters; the trained ones come from `convert.feature_networks`."""
    return nnx.to_pure_dict(nnx.state(Inception(nnx.Rngs(params=key)), nnx.Param))


def layers(params: Params, x: Array) -> dict[str, Array]:
    """What every layer returns; under `jit` only what is used is computed.

    Args:
        params: as `init` makes them.
        x: float32 [B, H, W, 3], (value - 128) / 128 of values 0 .. 255; 299 pixels,
            other sizes of at least 75 only for tests.

    Returns:
        "stem" and the blocks "Mixed_5b" to "Mixed_7c" [B, h, w, c]; "pool" [B, 2048];
        "spatial" [B, 2023] of 17 x 17 places and 7 channels, channels fastest;
        "logits_unbiased" [B, 1008], without the bias, as the Inception Score is
        computed by; and "logits" [B, 1008].

    Raises:
        InputError: if `x` has another shape.
    """
    if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < 75:
        raise InputError(
            "layers: need x [B, H, W, 3] of at least 75 pixels, got "
            f"x={list(x.shape)!r}. Resize to 299 pixels; channels come last."
        )
    return nnx.merge(nnx.graphdef(_blank()), params)(x)


def shapes() -> Params:
    """Parameters like those of `init`, as shapes without values."""
    return nnx.to_pure_dict(nnx.state(_blank(), nnx.Param))


@functools.lru_cache(maxsize=1)
def _blank() -> Inception:
    """The module without values: its static half is what `nnx.merge` needs."""
    return nnx.eval_shape(lambda: Inception(nnx.Rngs(params=0)))


def _pool(x: Array, pool: Pool) -> Array:
    window, strides = (3, 3), (pool.stride, pool.stride)
    if pool.name == "maximum":
        return nnx.max_pool(x, window, strides, pool.padding)
    return nnx.avg_pool(x, window, strides, pool.padding, count_include_pad=False)


def _conv(channels: int, layer: Conv, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(
        channels,
        layer.features,
        (layer.rows, layer.columns),
        strides=layer.stride,
        padding=layer.padding,
        kernel_init=nnx.initializers.he_normal(),
        precision=EXACT,
        rngs=rngs,
    )
