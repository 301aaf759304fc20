"""Layers of convolutional networks; images are [B, H, W, C]."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxguide.errors import InputError


class GroupNorm(nnx.Module):
    """Mean 0 and variance 1 of every group of channels, then an affine map.

    Statistics are float32 whatever the type of the input.

    Args:
        channels: of the input.
        groups: divides `channels`; a group is a run of neighbouring channels.
        epsilon: is added to the variance.
    """

    def __init__(self, channels: int, groups: int, *, epsilon: float = 1e-6):
        self.groups, self.epsilon = groups, epsilon
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C], dtype of `x`."""
        wide = x.astype(jnp.float32)
        centred = wide - self._mean(wide)
        unit = centred * lax.rsqrt(self._mean(jnp.square(centred)) + self.epsilon)
        scale, bias = (
            leaf[...].astype(jnp.float32)[None, None, None]
            for leaf in (self.scale, self.bias)
        )
        return (unit * scale + bias).astype(x.dtype)

    def _mean(self, x: Array) -> Array:
        """Means over the groups [B, 1, 1, C].

        Row by row, then over rows: a long sum in one go loses digits on CPU.
        """
        batch, height, width, channels = x.shape
        groups = x.reshape(batch, height, width, self.groups, -1)
        means = groups.mean(axis=(2, 4)).mean(axis=1)
        return jnp.repeat(means, channels // self.groups, axis=1)[:, None, None]


def make_conv(
    inputs: int,
    outputs: int,
    rngs: nnx.Rngs,
    *,
    size: int = 3,
    stride: int = 1,
    padding: Any = None,
    bias: bool = True,
) -> nnx.Conv:
    """A square convolution; without `padding` it is centred, zeros outside."""
    padding = size // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=bias,
        rngs=rngs,
    )


def enlarge(x: Array) -> Array:
    """Every pixel of [B, H, W, C] becomes a square of 2 x 2."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def fresh(network: type[nnx.Module], config: Any, key: Array) -> dict:
    """Nested dict of float32 parameters of `network(config, rngs)`."""
    made = network(config, nnx.Rngs(params=key))  # pyright: ignore[reportCallIssue]
    return nnx.to_pure_dict(nnx.state(made, nnx.Param))


def run(network: type[nnx.Module], config: Any, params: dict, x: Array) -> Array:
    """`network(config)` of `x`, computed in `config.dtype`; dtype of `x`."""
    dtype = jnp.dtype(config.dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), params)
    module = nnx.merge(_graph(network, config), params)
    return module(x.astype(dtype)).astype(x.dtype)  # pyright: ignore[reportCallIssue]


@functools.lru_cache(maxsize=32)
def _graph(network: type[nnx.Module], config: Any) -> nnx.GraphDef:
    """The static half of the module; built without allocating parameters."""
    make: Any = network
    return nnx.split(nnx.eval_shape(lambda: make(config, nnx.Rngs(params=0))))[0]


@functools.lru_cache(maxsize=32)
def parameter_shapes(init: Any, config: Any) -> dict:
    """The parameters that `init(config, key)` would make, as shapes only."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def parameter_count(init: Any, config: Any) -> int:
    """Number of values in what `init(config, key)` would make."""
    leaves = jax.tree.leaves(parameter_shapes(init, config))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def check_images(images: Array, channels: int, factor: int) -> None:
    """Raises InputError unless `images` can be encoded."""
    shape = images.shape
    whole = len(shape) == 4 and not (shape[1] % factor or shape[2] % factor)
    if not whole or shape[3] != channels:
        raise InputError(
            f"encode: need images [B, H, W, {channels}] with edges that {factor} "
            f"divides, got images={list(shape)!r}. Crop or resize them."
        )


def check_latents(latents: Array, channels: int) -> None:
    """Raises InputError unless `latents` can be decoded."""
    if latents.ndim != 4 or latents.shape[3] != channels:
        raise InputError(
            f"decode: need latents [B, h, w, {channels}], got "
            f"latents={list(latents.shape)!r}. Channels come last."
        )
