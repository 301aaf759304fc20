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

from jaxguide.models.attention import (
    fused_attention,
    received_attention,
    softmax_attention,
    tapped_attention,
)
from jaxguide.models.dit_config import DiTConfig

# (q, k, v) -> out, all [B, heads, N, head_dim]; between taps and blocks tokens first
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
        self.heads, self.filled = config.heads, config.head_multiple
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)
        # Zero: every gate is closed at first, so a fresh block is the identity.
        self.modulation = linear(width, 6 * width, init=nnx.initializers.zeros)

    def __call__(
        self,
        tokens: Array,
        modulation: Array,
        attend: Attention | None,
        *,
        attention: bool = True,
        mlp: bool = True,
    ) -> Array:
        """Tokens [B, N, width] after the parts that are wanted.

        Args:
            tokens: [B, N, width].
            modulation: [B, 6 width], shift, scale and gate of both parts.
            attend: computes the attention; None lets the network do it.
            attention, mlp: static; False leaves that part out.
        """
        parts = jnp.split(modulation, 6, axis=-1)
        if attention:
            shift, scale, gate = parts[:3]
            update = self._attend(normalise(tokens, shift, scale), attend)
            tokens = tokens + gate[:, None] * update
        if mlp:
            shift, scale, gate = parts[3:]
            hidden = jax.nn.gelu(self.fc1(normalise(tokens, shift, scale)))
            tokens = tokens + gate[:, None] * self.fc2(hidden)
        return tokens

    def _attend(self, tokens: Array, attend: Attention | None) -> Array:
        if attend is None and self.filled > 1:
            return self._attend_filled(tokens)
        batch, count, width = tokens.shape
        heads = (batch, count, self.heads, width // self.heads)
        attend = attend or fused_attention
        q, k, v = (part.reshape(heads) for part in self._projected(tokens))
        return self.out(attend(q, k, v).reshape(batch, count, width))

    def _attend_filled(self, tokens: Array) -> Array:
        """Attention by the network itself, with heads filled up by zeros.

        The weights are filled up, which are small; a product then writes filled-up
        heads, in the order in which the kernel reads them.
        """
        width = tokens.shape[-1]
        size = width // self.heads
        more = -size % self.filled
        kernel = self.qkv.kernel[...].reshape(width, 3, self.heads, size)
        bias = jnp.asarray(self.qkv.bias).reshape(3, self.heads, size)
        out = self.out.kernel[...].reshape(self.heads, size, width)
        kernel, bias, out = (
            jnp.pad(part, [(0, more if axis == at else 0) for axis in range(part.ndim)])
            for part, at in ((kernel, 3), (bias, 2), (out, 1))
        )
        q, k, v = (
            jnp.einsum("bnw,whd->bnhd", tokens, kernel[:, i]) + bias[i][None, None]
            for i in range(3)
        )
        mixed = fused_attention(q, k, v, scale=size**-0.5)
        mixed = jnp.einsum("bnhd,hdw->bnw", mixed, out)
        return mixed + jnp.asarray(self.out.bias)[None, None]

    def _projected(self, tokens: Array) -> list[Array]:
        """Queries, keys and values of the tokens, each [B, N, width]."""
        batch, count, width = tokens.shape
        if batch * count <= width:
            return jnp.split(self.qkv(tokens), 3, axis=-1)
        # One product would have to be cut apart, which copies more than cutting its
        # weights as soon as there are more tokens than features.
        kernels = jnp.split(self.qkv.kernel[...], 3, axis=-1)
        biases = jnp.split(jnp.asarray(self.qkv.bias), 3)
        pairs = zip(kernels, biases, strict=True)
        return [tokens @ kernel + bias[None, None] for kernel, bias in pairs]


def run_block(
    block: Block, tokens: Array, modulation: Array, index: Array, taps: Taps
) -> tuple[Array, Array | None]:
    """One block with its taps: tokens, and the received attention [B, N] if wanted."""
    # The record leaves through a list, since a block returns its tokens alone.
    received = []

    def tapped(q: Array, k: Array, v: Array) -> Array:
        if taps.record:
            received.append(received_attention(q, k))
        if taps.attention is None:
            return softmax_attention(q, k, v)
        return taps.attention(softmax_attention, q, k, v, index)

    untouched = taps.attention is None and not taps.record
    attend = None if untouched else functools.partial(tapped_attention, tapped)

    def run(tokens: Array, *, attention: bool = True, mlp: bool = True) -> Array:
        return block(tokens, modulation, attend, attention=attention, mlp=mlp)

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
    modulations: Array | None = None,
) -> tuple[Array, Array | None]:
    """All blocks, or those of `taps.keep_blocks` in this order.

    Args:
        blocks: stacked on a leading axis.
        tokens: [B, N, width].
        cond: [B, width], after its activation.
        taps: what is changed or recorded.
        config: the architecture.
        modulations: of all blocks, [depth, B, 6 width], where they are known already.

    Returns:
        Tokens [B, N, width], and the received attention float32 [B, blocks, N] or None.
    """
    # The parameters of all blocks lie on a leading axis, and one scan runs over it: XLA
    # compiles one block instead of `depth`, and the blocks that run may be an array.
    graph, stacked = nnx.split(blocks)

    def run(tokens: Array, params: nnx.State, index: Array, known: Array | None):
        block = nnx.merge(graph, fetched(params))
        modulation = block.modulation(cond) if known is None else known
        return run_block(block, tokens, modulation, index, taps)

    run = _rematerialised(run, config.remat)

    def run_chosen(tokens: Array, index: Array):
        params, known = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False),
            (stacked, modulations),
        )
        return run(tokens, params, index, known)

    if taps.keep_blocks is not None:
        tokens, record = lax.scan(run_chosen, tokens, taps.keep_blocks)
    else:
        # The scan slices the stack itself here: cheaper than picking by index, above
        # all in the gradient, which would add into the whole stack for each block.
        every = jnp.arange(config.depth, dtype=jnp.int32)
        tokens, record = lax.scan(
            lambda tokens, step: run(tokens, *step),
            tokens,
            (stacked, every, modulations),
            unroll=config.unroll,
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
