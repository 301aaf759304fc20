"""A network of a few operations that answers every tap, for laws that need no truth."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxguide.models.attention import received_attention, softmax_attention

DEPTH = 6


def toy(
    weights: jax.Array,
    x: jax.Array,
    t: jax.Array,
    label: jax.Array,
    keep_blocks: jax.Array | None = None,
    **taps: Any,
) -> Any:
    """A smooth network that is cheap to compile; `weights` [2], x [B, 2, 2]."""
    moved, record = inside(x, t, label, **taps)
    t, label = (v.astype(x.dtype).reshape(-1, 1, 1) for v in (t, label))
    share = jnp.ones((), x.dtype)
    if keep_blocks is not None:
        share = (keep_blocks.sum().astype(x.dtype) + 1) / (DEPTH * (DEPTH - 1) // 2)
    slope = (weights[0].astype(x.dtype) + label / 4) * share
    out = jnp.sin(slope * moved + t) + weights[1].astype(x.dtype) * label
    return out if record is None else (out, None, record)


def inside(
    x: jax.Array,
    t: jax.Array,
    label: jax.Array,
    *,
    attention: Callable | None = None,
    block: Callable | None = None,
    time_embedding: Callable | None = None,
    record_attention: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """The state as the taps move it, and the record [B, DEPTH, N] if there is one.

    Each tap acts through the difference that it makes to what it takes the place of:
    one that changes nothing moves nothing.
    """
    tokens = x.reshape(len(x), -1, 1)
    label = label.astype(x.dtype).reshape(-1, 1, 1)
    move, record = jnp.zeros_like(tokens), None
    if attention is not None:
        move += _attention_moves(attention, tokens, label)
    if block is not None:
        move += _block_moves(block, tokens)
    if time_embedding is not None:
        move += _time_moves(time_embedding, t.astype(x.dtype))
    if record_attention:
        seen = [received_attention(*_qkv(tokens, label, i)[:2]) for i in range(DEPTH)]
        record = jnp.stack(seen, axis=1)
    return x + move.reshape(x.shape), record


def _qkv(tokens: jax.Array, label: jax.Array, index: Any) -> tuple[jax.Array, ...]:
    """Queries, keys and values of one block, [B, 1, N, 1]."""
    number = jnp.asarray(index).astype(tokens.dtype) + 1
    return (
        (tokens * number)[:, None],
        jnp.cos(tokens + label / 3)[:, None],
        (tokens + label / 5)[:, None],
    )


def _attention_moves(
    attention: Callable, tokens: jax.Array, label: jax.Array
) -> jax.Array:
    def add(move: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        qkv = _qkv(tokens, label, index)
        change = attention(softmax_attention, *qkv, index) - softmax_attention(*qkv)
        return move + change[:, 0], None

    return lax.scan(add, jnp.zeros_like(tokens), _indices())[0]


def _block_moves(block: Callable, tokens: jax.Array) -> jax.Array:
    def step(
        both: tuple[jax.Array, jax.Array], index: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        number = index.astype(tokens.dtype) + 1

        def run(
            tokens: jax.Array, *, attention: bool = True, mlp: bool = True
        ) -> jax.Array:
            if attention:
                tokens = tokens + 0.2 * jnp.sin(number * tokens)
            return tokens + 0.1 * jnp.cos(tokens) if mlp else tokens

        tapped, plain = both
        return (block(run, tapped, index), run(plain)), None

    tapped, plain = lax.scan(step, (tokens, tokens), _indices())[0]
    return tapped - plain


def _time_moves(tap: Callable, t: jax.Array) -> jax.Array:
    waves = jnp.arange(1.0, 9.0).astype(t.dtype)[None]
    embedding = jnp.sin(t[:, None] * waves)
    return (tap(embedding) - embedding).mean(axis=1)[:, None, None]


def _indices() -> jax.Array:
    return jnp.arange(DEPTH, dtype=jnp.int32)
