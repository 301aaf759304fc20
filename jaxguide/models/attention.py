"""Scaled dot-product attention, as networks compute it.

Heads come first: queries, keys and values are [B, heads, N, head_dim].
"""

import jax
import jax.numpy as jnp
from jax import Array


def attention_weights(q: Array, k: Array) -> Array:
    """softmax(q k^T / sqrt(head_dim)), float32 [B, heads, N, N]; rows are queries."""
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1)


def softmax_attention(q: Array, k: Array, v: Array) -> Array:
    """Attention with a float32 softmax: what networks here run, and hand to a tap.

    Args:
        q, k, v: [B, heads, N, head_dim].

    Returns:
        [B, heads, N, head_dim], dtype of `v`.
    """
    weights = attention_weights(q, k)
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v)


def received_attention(q: Array, k: Array) -> Array:
    """How much attention every token receives, float32 [B, N]; 1 on average.

    sum over queries of (mean over heads of the weights)
    """
    return attention_weights(q, k).mean(axis=1).sum(axis=1)
