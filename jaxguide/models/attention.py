"""Scaled dot-product attention: one function, computed as suits each device.

    fused_attention(q, k, v) = softmax(q k^T / sqrt(head_dim)) v

Queries, keys and values are [B, N, heads, head_dim], tokens first, as a dense layer
leaves them. What runs is chosen for the device that a program is compiled for, when it
is lowered; the host and its own devices do not matter:

| device | computed by |
| --- | --- |
| NVIDIA GPU, bfloat16 or float16 | cuDNN's fused kernel |
| TPU | the Pallas kernel "splash attention", heads padded to 128 lanes |
| GPU otherwise | queries in blocks, so that no [N, N] array is made |
| CPU, few tokens, any other | dense |

A tap that changes attention sees heads first, [B, heads, N, head_dim], and is handed
`softmax_attention`, which is the same function in that layout.
"""

from collections.abc import Callable

from jax import Array

from jaxguide.models import fused


def dense_attention(
    q: Array, k: Array, v: Array, *, scale: float | None = None
) -> Array:
    """Attention by its formula, with a float32 softmax of [B, heads, N, N].

    Args:
        q, k, v: [B, N, heads, head_dim].
        scale: of the logits; 1 / sqrt(head_dim) if None.

    Returns:
        [B, N, heads, head_dim], dtype of `v`.
    """
    return fused.dense(q, k, v, _scale(q, scale))


def fused_attention(
    q: Array, k: Array, v: Array, *, scale: float | None = None
) -> Array:
    """Attention as the device of the program computes it fastest.

    Derivatives of any order and kind exist. The reverse pass computes the forward pass
    again, so nothing of size N x N is kept; the derivative of a derivative is dense.

    Args:
        q, k, v: [B, N, heads, head_dim].
        scale: of the logits, static; 1 / sqrt(head_dim) if None.

    Returns:
        [B, N, heads, head_dim], dtype of `v`: `dense_attention` within the rounding of
        the dtype.
    """
    return fused.attention(q, k, v, _scale(q, scale))


def softmax_attention(q: Array, k: Array, v: Array) -> Array:
    """`fused_attention` with heads first: what networks hand to a tap.

    Args:
        q, k, v: [B, heads, N, head_dim].

    Returns:
        [B, heads, N, head_dim], dtype of `v`.
    """
    return _swapped(fused_attention(*map(_swapped, (q, k, v))))


def tapped_attention(tap: Callable[..., Array], q: Array, k: Array, v: Array) -> Array:
    """What `tap(q, k, v)`, heads first, makes of arrays with tokens first."""
    return _swapped(tap(*map(_swapped, (q, k, v))))


def attention_weights(q: Array, k: Array) -> Array:
    """softmax(q k^T / sqrt(head_dim)), float32 [B, heads, N, N]; rows are queries.

    Args:
        q, k: [B, heads, N, head_dim].
    """
    return fused.weights(_swapped(q), _swapped(k), _scale(q, None))


def received_attention(q: Array, k: Array) -> Array:
    """How much attention every token receives, float32 [B, N]; 1 on average.

    sum over queries of (mean over heads of the weights); q, k: [B, heads, N, head_dim].
    """
    return attention_weights(q, k).mean(axis=1).sum(axis=1)


def _scale(q: Array, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _swapped(array: Array) -> Array:
    """Heads first from tokens first, and back."""
    return array.swapaxes(1, 2)
