"""diffusers' DiT with random weights, and the same weights in this package's layout.

Shared by the parity tests and the benchmark; needs torch and diffusers.
"""

from typing import Any

import diffusers
import jax
import numpy as np
import torch

from jaxguide.models import DiTConfig


def fresh_network(config: DiTConfig) -> Any:
    """`DiTTransformer2DModel` of this shape, as diffusers initialises it."""
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        sample_size=config.image_shape[0],
        patch_size=config.patch,
        num_embeds_ada_norm=config.num_classes,
    )


def their_network(config: DiTConfig, *, std: float = 0.02, seed: int = 0) -> Any:
    """`DiTTransformer2DModel` of this shape, every parameter drawn from N(0, std^2).

    diffusers has one condition embedder per block where DiT has one for all; they are
    made equal here, so that both networks are the same function.
    """
    network = fresh_network(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, std, generator=generator)
        first = network.transformer_blocks[0].norm1.emb.state_dict()
        for block in network.transformer_blocks:
            block.norm1.emb.load_state_dict(first)
    return network


def our_params(network: Any) -> dict:
    """The weights of `network` as `models.apply` takes them; numpy, float32.

    The configuration needs `downscale_freq_shift=1.0`, and a `time_scale` that gives
    the network the times that diffusers would.
    """
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    embed = "transformer_blocks.0.norm1.emb"
    patch = state["pos_embed.proj.weight"].transpose(2, 3, 1, 0)
    blocks = [_block(state, i) for i in range(len(network.transformer_blocks))]
    return {
        "patch_in": {
            "kernel": patch.reshape(-1, patch.shape[-1]),
            "bias": state["pos_embed.proj.bias"],
        },
        "pos_embed": network.pos_embed.pos_embed.numpy(),
        "time_in": _linear(state, f"{embed}.timestep_embedder.linear_1"),
        "time_out": _linear(state, f"{embed}.timestep_embedder.linear_2"),
        "label_table": state[f"{embed}.class_embedder.embedding_table.weight"],
        "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
        "modulation": _linear(state, "proj_out_1"),
        "patch_out": _linear(state, "proj_out_2"),
    }


def official_state(network: Any) -> dict:
    """The weights of `network` as a published file of DiT names them; torch tensors.

    Such a file means another network, as diffusers' frequencies differ: see
    `use_official_frequencies`.
    """
    theirs, ours = network.state_dict(), {}

    def layer(name: str, *parts: str) -> None:
        for end in ("weight", "bias"):
            ours[f"{name}.{end}"] = torch.cat([theirs[f"{p}.{end}"] for p in parts])

    embed = "transformer_blocks.0.norm1.emb"
    ours["pos_embed"] = network.pos_embed.pos_embed.clone()
    layer("x_embedder.proj", "pos_embed.proj")
    layer("t_embedder.mlp.0", f"{embed}.timestep_embedder.linear_1")
    layer("t_embedder.mlp.2", f"{embed}.timestep_embedder.linear_2")
    table = theirs[f"{embed}.class_embedder.embedding_table.weight"]
    ours["y_embedder.embedding_table.weight"] = table
    for i in range(len(network.transformer_blocks)):
        to, of = f"blocks.{i}", f"transformer_blocks.{i}"
        layer(f"{to}.attn.qkv", *(f"{of}.attn1.to_{part}" for part in "qkv"))
        layer(f"{to}.attn.proj", f"{of}.attn1.to_out.0")
        layer(f"{to}.mlp.fc1", f"{of}.ff.net.0.proj")
        layer(f"{to}.mlp.fc2", f"{of}.ff.net.2")
        layer(f"{to}.adaLN_modulation.1", f"{of}.norm1.linear")
    layer("final_layer.linear", "proj_out_2")
    layer("final_layer.adaLN_modulation.1", "proj_out_1")
    return ours


def use_official_frequencies(network: Any) -> None:
    """Divides the frequencies of time by 128, as DiT does, not by 127."""
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0


def _linear(state: dict, name: str) -> dict:
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def _block(state: dict, index: int) -> dict:
    name = f"transformer_blocks.{index}"
    qkv = [_linear(state, f"{name}.attn1.to_{part}") for part in "qkv"]
    return {
        "qkv": jax.tree.map(lambda *parts: np.concatenate(parts, -1), *qkv),
        "out": _linear(state, f"{name}.attn1.to_out.0"),
        "fc1": _linear(state, f"{name}.ff.net.0.proj"),
        "fc2": _linear(state, f"{name}.ff.net.2"),
        "modulation": _linear(state, f"{name}.norm1.linear"),
    }
