"""A small network for points: an MLP of residual blocks that may be left out.

    hidden = linear(features of x);   hidden += block_i(hidden, cond)   for i in keep
    prediction = linear(hidden),      cond = linear(features of t) + table[label]

Blocks are stacked and scanned, so that a block that is left out is not computed and a
new choice of the same number compiles nothing anew.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from jaxguide import guidance, paths

TIME_WAVES = 6


@dataclasses.dataclass(frozen=True)
class PointNet:
    """An architecture; static and hashable.

    Args:
        size: numbers per point, n.
        classes: number of classes; label `classes` stands for "no class".
        width: hidden features.
        depth: residual blocks.
        waves: octaves of sines and cosines of x; more see finer detail.
    """

    size: int
    classes: int = 1
    width: int = 64
    depth: int = 6
    waves: int = 2

    @property
    def block_flops(self) -> float:
        """Of one block, per point."""
        return 2.0 * 2 * self.width**2

    @property
    def flops(self) -> float:
        """Of a whole pass, per point."""
        inputs = self.size * (1 + 2 * self.waves) + 1 + 2 * TIME_WAVES
        ends = 2.0 * self.width * (inputs + self.size)
        return ends + self.depth * self.block_flops

    def init(self, seed: int) -> Any:
        """Fresh parameters, a nested dict; those of the blocks lead with [depth]."""
        return _init(self, jax.random.key(seed))

    def __call__(
        self, params: Any, x: Array, t: Array, label: Array, keep_blocks: Any = None
    ) -> Array:
        """The velocity [B, n] at x [B, n]; `keep_blocks` are the blocks that run."""
        module = nnx.merge(_graph(self), params)
        return module(x, t, label, keep_blocks)

    def network(self, params: Any) -> guidance.Network:
        """As samplers and guidance take it."""
        return guidance.Network(
            jax.tree_util.Partial(self, params),
            "velocity",
            paths.Linear(),
            depth=self.depth,
            flops=self.flops,
            block_flops=self.block_flops,
        )


class Block(nnx.Module):
    """Two linear maps around an activation, with the condition added before it."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(width, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, hidden: Array, cond: Array) -> Array:
        return self.second(jax.nn.silu(self.first(hidden) + cond))


class Module(nnx.Module):
    """The network as a Flax module; `PointNet` is used as pure functions."""

    def __init__(self, config: PointNet, rngs: nnx.Rngs):
        width, size = config.width, config.size
        self.config = config
        self.enter = nnx.Linear(size * (1 + 2 * config.waves), width, rngs=rngs)
        self.time = nnx.Linear(1 + 2 * TIME_WAVES, width, rngs=rngs)
        self.labels = nnx.Embed(config.classes + 1, width, rngs=rngs)
        stack = nnx.vmap(lambda keys: Block(width, keys))
        self.blocks = stack(rngs.fork(split=config.depth))
        zeros = nnx.initializers.zeros
        self.leave = nnx.Linear(width, size, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Array, t: Array, label: Array, keep: Any) -> Array:
        cond = self.time(_features(t[:, None], TIME_WAVES)) + self.labels(label)
        hidden = self.enter(_features(x, self.config.waves))
        graph, stacked = nnx.split(self.blocks)

        def run(hidden: Array, index: Array) -> tuple[Array, None]:
            own = jax.tree.map(
                lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False),
                stacked,
            )
            return hidden + nnx.merge(graph, own)(hidden, cond), None

        every = jnp.arange(self.config.depth, dtype=jnp.int32)
        hidden, _ = lax.scan(run, hidden, every if keep is None else keep)
        return self.leave(jax.nn.silu(hidden))


def _features(values: Array, waves: int) -> Array:
    """[B, n] -> [B, n (1 + 2 waves)]: the values, sines and cosines of octaves."""
    octaves = 2.0 ** jnp.arange(waves, dtype=values.dtype)
    angles = (values[:, :, None] * octaves[None, None]).reshape(len(values), -1)
    return jnp.concatenate([values, jnp.sin(angles), jnp.cos(angles)], axis=1)


@functools.lru_cache(maxsize=32)
def _graph(config: PointNet) -> nnx.GraphDef:
    """The static half of the module; built without allocating parameters."""
    module = nnx.eval_shape(lambda: Module(config, nnx.Rngs(params=0)))
    return nnx.split(module)[0]


@functools.partial(jax.jit, static_argnums=0)
def _init(config: PointNet, key: Array) -> Any:
    module = Module(config, nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))
