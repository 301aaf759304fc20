"""The forward pass of DiT once more, slow and obvious: float64 numpy, loops, no scan.

What guidance changes inside is written out by the tests, as a function that takes the
place of one line here.
"""

import math

import numpy as np


def in_float64(params):
    """Nested parameters as float64 numpy."""
    if isinstance(params, dict):
        return {name: in_float64(value) for name, value in params.items()}
    return np.asarray(params, np.float64)


def softmax_map(q, k):
    """Attention map [B, heads, N, N]: row i says where query i looks."""
    batch, heads, count, size = q.shape
    out = np.zeros((batch, heads, count, count))
    for b in range(batch):
        for h in range(heads):
            for i in range(count):
                logits = k[b, h] @ q[b, h, i] / math.sqrt(size)
                weights = np.exp(logits - logits.max())
                out[b, h, i] = weights / weights.sum()
    return out


def plain_attention(q, k, v, index):
    """Softmax attention, heads first."""
    del index
    return softmax_map(q, k) @ v


def plain_block(run, tokens, index):
    """The block as it is."""
    del index
    return run(tokens)


def forward(
    config,
    params,
    x,
    t,
    label,
    *,
    attention=plain_attention,
    block=plain_block,
    embed=lambda embedding: embedding,
):
    """Prediction [B, H, W, C]; the three functions change one line each."""
    params, x, t = in_float64(params), np.asarray(x, np.float64), np.asarray(t, float)
    tokens = linear(params["patch_in"], patches(x, config)) + params["pos_embed"]
    rate = 10000.0 ** (-np.arange(128) / (128 - config.downscale_freq_shift))
    angle = (config.time_scale * t[:, None] + config.time_offset) * rate
    features = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    embedding = linear(params["time_out"], silu(linear(params["time_in"], features)))
    cond = silu(embed(embedding) + params["label_table"][np.asarray(label)])
    for i in range(config.depth):
        here = pick(params["blocks"], i)

        def run(tokens, *, attend=True, mlp=True, here=here, i=i):
            shift, scale, gate, shift2, scale2, gate2 = (
                part[:, None]
                for part in np.split(linear(here["modulation"], cond), 6, 1)
            )
            if attend:
                inner = norm(tokens) * (1 + scale) + shift
                q, k, v = heads(linear(here["qkv"], inner), config.heads)
                mixed = attention(q, k, v, i).transpose(0, 2, 1, 3).reshape(inner.shape)
                tokens = tokens + gate * linear(here["out"], mixed)
            if mlp:
                inner = norm(tokens) * (1 + scale2) + shift2
                inner = linear(here["fc2"], gelu(linear(here["fc1"], inner)))
                tokens = tokens + gate2 * inner
            return tokens

        tokens = block(run, tokens, i)
    shift, scale = np.split(linear(params["modulation"], cond), 2, 1)
    tokens = norm(tokens) * (1 + scale[:, None]) + shift[:, None]
    return unpatches(linear(params["patch_out"], tokens), config)


def pick(params, index):
    """The parameters of one block."""
    if isinstance(params, dict):
        return {name: pick(value, index) for name, value in params.items()}
    return params[index]


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def heads(qkv, number):
    """[B, N, 3 width] -> three of [B, heads, N, head_dim]."""
    batch, count, width = qkv.shape
    split = qkv.reshape(batch, count, 3, number, width // 3 // number)
    return [split[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]


def patches(x, config):
    """[B, N, patch patch C], row by row."""
    p, (rows, columns) = config.patch, config.grid
    cut = [
        x[:, p * r : p * r + p, p * c : p * c + p].reshape(len(x), -1)
        for r in range(rows)
        for c in range(columns)
    ]
    return np.stack(cut, 1)


def unpatches(tokens, config):
    """The inverse of `patches`."""
    p, (rows, columns) = config.patch, config.grid
    out = np.zeros((len(tokens), p * rows, p * columns, config.channels))
    for i in range(rows * columns):
        r, c = divmod(i, columns)
        piece = tokens[:, i].reshape(len(tokens), p, p, config.channels)
        out[:, p * r : p * r + p, p * c : p * c + p] = piece
    return out
