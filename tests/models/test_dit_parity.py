"""The whole forward pass against diffusers' DiT, an independent implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import models

torch = pytest.importorskip("torch", reason="parity needs torch")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers")

FAST_COMPILE = True
WIDTH, DEPTH, HEADS, PATCH, SIZE, CLASSES = 48, 3, 4, 2, 8, 7


def their_network():
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=4,
        out_channels=8,
        num_layers=DEPTH,
        sample_size=SIZE,
        patch_size=PATCH,
        num_embeds_ada_norm=CLASSES,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.08, generator=generator)
        # One condition embedder per block there, one for all here: tie them.
        first = network.transformer_blocks[0].norm1.emb.state_dict()
        for block in network.transformer_blocks:
            block.norm1.emb.load_state_dict(first)
    return network


def our_params(state):
    def kernel(name):
        return state[f"{name}.weight"].T

    def linear(name):
        return {"kernel": kernel(name), "bias": state[f"{name}.bias"]}

    def block(i):
        name = f"transformer_blocks.{i}"
        qkv = [linear(f"{name}.attn1.to_{part}") for part in "qkv"]
        return {
            "qkv": jax.tree.map(lambda *parts: np.concatenate(parts, -1), *qkv),
            "out": linear(f"{name}.attn1.to_out.0"),
            "fc1": linear(f"{name}.ff.net.0.proj"),
            "fc2": linear(f"{name}.ff.net.2"),
            "modulation": linear(f"{name}.norm1.linear"),
        }

    embed = "transformer_blocks.0.norm1.emb"
    patch = state["pos_embed.proj.weight"].transpose(2, 3, 1, 0)
    blocks = [block(i) for i in range(DEPTH)]
    return {
        "patch_in": {
            "kernel": patch.reshape(-1, WIDTH),
            "bias": state["pos_embed.proj.bias"],
        },
        "pos_embed": state["pos_embed.pos_embed"],
        "time_in": linear(f"{embed}.timestep_embedder.linear_1"),
        "time_out": linear(f"{embed}.timestep_embedder.linear_2"),
        "label_table": state[f"{embed}.class_embedder.embedding_table.weight"],
        "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
        "modulation": linear("proj_out_1"),
        "patch_out": linear("proj_out_2"),
    }


def test_forward_equals_diffusers():
    theirs = their_network()
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    state["pos_embed.pos_embed"] = theirs.pos_embed.pos_embed.numpy()
    config = models.DiTConfig(
        image_size=SIZE,
        channels=4,
        patch=PATCH,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        num_classes=CLASSES,
        learn_sigma=True,
        time_scale=1.0,
        downscale_freq_shift=1.0,
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, SIZE, SIZE, 4)).astype(np.float32)
    t, label = np.array([0, 417, 999]), np.array([0, 3, CLASSES])
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            timestep=torch.from_numpy(t),
            class_labels=torch.from_numpy(label),
        ).sample.numpy()
    actual = jax.jit(models.apply, static_argnums=0)(
        config,
        jax.tree.map(jnp.asarray, our_params(state)),
        jnp.asarray(x),
        jnp.asarray(t, jnp.float32),
        jnp.asarray(label, jnp.int32),
    )
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(actual, expected.transpose(0, 2, 3, 1), atol=1e-4)


def test_our_position_table_is_theirs():
    theirs = their_network().pos_embed.pos_embed.numpy()
    config = models.DiTConfig(SIZE, 4, PATCH, WIDTH, DEPTH, HEADS, CLASSES)
    ours = models.init(config, jax.random.key(0))["pos_embed"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
