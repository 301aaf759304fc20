"""DiT and SiT in plain PyTorch, with the names and the layout of the published files.

Written for the tests from a description of those files, and as obviously as possible:
one function, a state dict in, a prediction out. Images are NCHW, as there.
"""

import math

import numpy as np
import torch
from torch.nn import functional


def random_state(
    *,
    width=24,
    depth=2,
    patch=2,
    channels=4,
    outputs=4,
    edge=4,
    rows=6,
    scale_input=False,
    projectors=0,
    seed=0,
    std=0.3,
):
    """A state dict of random numbers; `outputs` channels, `edge` positions a side."""
    shapes = {
        "pos_embed": (1, edge * edge, width),
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        "y_embedder.embedding_table.weight": (rows, width),
    }

    def add(name, inputs, size):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (size, inputs), (size,)

    for embedder in ["t_embedder", *(["s_embedder"] if scale_input else [])]:
        add(f"{embedder}.mlp.0", 256, width)
        add(f"{embedder}.mlp.2", width, width)
    for i in range(depth):
        add(f"blocks.{i}.attn.qkv", width, 3 * width)
        add(f"blocks.{i}.attn.proj", width, width)
        add(f"blocks.{i}.mlp.fc1", width, 4 * width)
        add(f"blocks.{i}.mlp.fc2", 4 * width, width)
        add(f"blocks.{i}.adaLN_modulation.1", width, 6 * width)
    add("final_layer.linear", width, patch * patch * outputs)
    add("final_layer.adaLN_modulation.1", width, 2 * width)
    for j in range(projectors):
        for layer in (0, 2, 4):
            add(f"projectors.{j}.{layer}", width, width)
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        spread = std / math.sqrt(shape[1] / 24) if len(shape) == 2 else std
        state[name] = torch.randn(shape, generator=draw) * spread
    return state


def forward(state, x, t, label, *, heads, number=None):
    """The output [B, C_out, H, W] of the network for times as it wants them."""
    patch = state["x_embedder.proj.weight"].shape[-1]
    tokens = functional.conv2d(x, *_layer(state, "x_embedder.proj"), stride=patch)
    rows, columns = tokens.shape[2:]
    tokens = tokens.flatten(2).transpose(1, 2) + state["pos_embed"]
    cond = _embedded(state, "t_embedder", t)
    cond = cond + state["y_embedder.embedding_table.weight"][label]
    if number is not None:
        cond = cond + _embedded(state, "s_embedder", number)
    cond = functional.silu(cond)
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    for i in range(depth):
        part = _linear(state, f"blocks.{i}.adaLN_modulation.1", cond)[:, None]
        shift, scale, gate, shift2, scale2, gate2 = part.chunk(6, -1)
        inner = _norm(tokens) * (1 + scale) + shift
        tokens = tokens + gate * _attention(state, f"blocks.{i}.attn", inner, heads)
        inner = _norm(tokens) * (1 + scale2) + shift2
        inner = _linear(state, f"blocks.{i}.mlp.fc1", inner)
        inner = functional.gelu(inner, approximate="tanh")
        tokens = tokens + gate2 * _linear(state, f"blocks.{i}.mlp.fc2", inner)
    part = _linear(state, "final_layer.adaLN_modulation.1", cond)[:, None]
    shift, scale = part.chunk(2, -1)
    tokens = _norm(tokens) * (1 + scale) + shift
    out = _linear(state, "final_layer.linear", tokens)
    out = out.reshape(len(x), rows, columns, patch, patch, -1)
    out = torch.einsum("brcpqk->bkrpcq", out)
    return out.reshape(len(x), -1, rows * patch, columns * patch)


def _layer(state, name):
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _linear(state, name, x):
    return functional.linear(x, *_layer(state, name))


def _norm(x):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _embedded(state, name, value):
    """128 cosines, then 128 sines, of the value as it is; two layers."""
    rate = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
    angle = value.float()[:, None] * rate[None]
    features = torch.cat([angle.cos(), angle.sin()], 1)
    hidden = functional.silu(_linear(state, f"{name}.mlp.0", features))
    return _linear(state, f"{name}.mlp.2", hidden)


def _attention(state, name, tokens, heads):
    batch, count, width = tokens.shape
    qkv = _linear(state, f"{name}.qkv", tokens)
    q, k, v = qkv.reshape(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, count, width)
    return _linear(state, f"{name}.proj", mixed)


def nchw(x):
    """An array of images, channels last, as a tensor with channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))


def nhwc(x):
    """The other way."""
    return x.numpy().transpose(0, 2, 3, 1)
