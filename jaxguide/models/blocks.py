"""The transformer block of DiT, and the functions through which it may be changed.

A block is `tokens += gate · f(LN(tokens) · (1 + scale) + shift)`, for f = attention and
then for f = MLP, with (shift, scale, gate) made from the condition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec

from jaxguide.models.attention import received_attention, softmax_attention
from jaxguide.models.dit_config import DiTConfig

# (q, k, v) -> out, all [B, heads, N, head_dim]
Attention = Callable[[Array, Array, Array], Array]
# (run, q, k, v, block_index) -> out, where `run` is the attention of the network
AttentionTap = Callable[[Attention, Array, Array, Array, Array], Array]


class RunBlock(Protocol):
    """One block as a function of its tokens; a part that is left out costs nothing."""

    def __call__(
        self, tokens: Array, *, attention: bool = True, mlp: bool = True
    ) -> Array:
        """Tokens [B, N, width] after the block."""
        ...


# (run, tokens, block_index) -> tokens
BlockTap = Callable[[RunBlock, Array, Array], Array]


class Taps(NamedTuple):
    """What is changed or recorded inside the network; see `dit.apply`."""

    keep_blocks: Array | None = None
    attention: AttentionTap | None = None
    block: BlockTap | None = None
    time_embedding: Callable[[Array], Array] | None = None
    record: bool = False


class Block(nnx.Module):
    """Attention and MLP, each modulated and gated by the condition."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, hidden = config.width, config.width * config.mlp_ratio
        linear = functools.partial(make_linear, rngs=rngs)
        self.heads = config.heads
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)
        # Zero: every gate is closed at first, so a fresh block is the identity.
        self.modulation = linear(width, 6 * width, init=nnx.initializers.zeros)

    def __call__(
        self,
        tokens: Array,
        cond: Array,
        attend: Attention,
        *,
        attention: bool = True,
        mlp: bool = True,
    ) -> Array:
        """Tokens [B, N, width] after the parts that are wanted.

        Args:
            tokens: [B, N, width].
            cond: [B, width], after its activation.
            attend: computes the attention.
            attention, mlp: static; False leaves that part out.
        """
        parts = jnp.split(self.modulation(cond), 6, axis=-1)
        if attention:
            shift, scale, gate = parts[:3]
            update = self._attend(normalise(tokens, shift, scale), attend)
            tokens = tokens + gate[:, None] * update
        if mlp:
            shift, scale, gate = parts[3:]
            hidden = jax.nn.gelu(self.fc1(normalise(tokens, shift, scale)))
            tokens = tokens + gate[:, None] * self.fc2(hidden)
        return tokens

    def _attend(self, tokens: Array, attend: Attention) -> Array:
        batch, count, width = tokens.shape
        split = (batch, count, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(tokens).reshape(split).transpose(2, 0, 3, 1, 4)
        mixed = attend(q, k, v)
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, count, width))


def run_block(
    block: Block, tokens: Array, cond: Array, index: Array, taps: Taps
) -> tuple[Array, Array | None]:
    """One block with its taps: tokens, and the received attention [B, N] if wanted."""
    # The record leaves through a list, since a block returns its tokens alone.
    received = []

    def attend(q: Array, k: Array, v: Array) -> Array:
        if taps.record:
            received.append(received_attention(q, k))
        if taps.attention is None:
            return softmax_attention(q, k, v)
        return taps.attention(softmax_attention, q, k, v, index)

    def run(tokens: Array, *, attention: bool = True, mlp: bool = True) -> Array:
        return block(tokens, cond, attend, attention=attention, mlp=mlp)

    if taps.block is not None:
        return taps.block(run, tokens, index), None
    tokens = run(tokens)
    return tokens, received[0] if taps.record else None


def run_blocks(
    blocks: Block,
    tokens: Array,
    cond: Array,
    taps: Taps,
    config: DiTConfig,
) -> tuple[Array, Array | None]:
    """All blocks, or those of `taps.keep_blocks` in this order.

    Returns:
        Tokens [B, N, width], and the received attention float32 [B, blocks, N] or None.
    """
    # The parameters of all blocks lie on a leading axis, and one scan runs over it: XLA
    # compiles one block instead of `depth`, and the blocks that run may be an array.
    graph, stacked = nnx.split(blocks)

    def run(tokens: Array, params: nnx.State, index: Array):
        block = nnx.merge(graph, fetched(params))
        return run_block(block, tokens, cond, index, taps)

    run = _rematerialised(run, config.remat)

    def run_chosen(tokens: Array, index: Array):
        params = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False),
            stacked,
        )
        return run(tokens, params, index)

    if taps.keep_blocks is not None:
        tokens, record = lax.scan(run_chosen, tokens, taps.keep_blocks)
    else:
        # The scan slices the stack itself here: cheaper than picking by index, above
        # all in the gradient, which would add into the whole stack for each block.
        every = jnp.arange(config.depth, dtype=jnp.int32)
        tokens, record = lax.scan(
            lambda tokens, step: run(tokens, *step), tokens, (stacked, every)
        )
    return tokens, None if record is None else record.swapaxes(0, 1)


def _rematerialised(run: Callable, remat: bool | str) -> Callable:
    """A block of whose inside a gradient keeps nothing, or the products with weights.

    The tokens between blocks are kept in any case.
    """
    if remat in (False, "none"):
        return run
    # Products of two arrays that both have a batch are those of attention: large where
    # tokens are many, and cheap to compute again.
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(run, policy=dots if remat == "dots" else None)


def fetched(params: Any) -> Any:
    """Parameters in full on every device, where those of a mesh each hold a part.

    Said where they are used, block by block: left alone, XLA may rather move the
    activations of the whole batch. Without a mesh (`jax.set_mesh`) this does nothing.
    """
    if AxisType.Auto not in jax.sharding.get_abstract_mesh().axis_types:
        return params
    return lax.with_sharding_constraint(params, PartitionSpec())


def normalise(tokens: Array, shift: Array, scale: Array) -> Array:
    """LayerNorm without parameters (in float32), then the conditional affine map."""
    # The variance is a mean of small squares, for which bfloat16 has too few digits.
    wide = tokens.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    unit = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return unit.astype(tokens.dtype) * (1 + scale[:, None]) + shift[:, None]


def make_linear(
    inputs: int, outputs: int, *, rngs: nnx.Rngs, init: Callable | None = None
) -> nnx.Linear:
    """A dense layer, Xavier-uniform if no `init` is given."""
    init = init or nnx.initializers.xavier_uniform()
    return nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)
