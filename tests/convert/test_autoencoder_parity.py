"""Autoencoders read from the files of others compute what the others compute."""

import dataclasses
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxguide.convert import __main__ as convert, autoencoder_import as published
from jaxguide.models import autoencoder_kl, load_autoencoder, tiny_autoencoder
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from tests.lazy import Lazy, needs

torch, diffusers = needs("torch", "diffusers", reason="parity needs PyTorch's")
theirs_of = Lazy("tests.diffusers_autoencoders")

FAST_COMPILE = True


def to_numpy(images):
    return theirs_of.to_numpy(images)


def to_torch(images):
    return theirs_of.to_torch(images)


OLD = AutoencoderKLConfig(widths=(16, 32), layers=1, groups=8)
NEW = dataclasses.replace(
    OLD, latent_channels=16, quant_conv=False, post_quant_conv=False
)
TILE, EDGE = 8, 14  # tiles of diffusers begin at 0, 6 and 12: the last is cut short

kl_encode = jax.jit(autoencoder_kl.encode, static_argnums=0)
kl_decode = jax.jit(autoencoder_kl.decode, static_argnums=0)


def images(*shape, seed=0):
    """Pictures [*shape, 3] in [-1, 1]."""
    draw = np.random.default_rng(seed).uniform(-1, 1, (*shape, 3))
    return draw.astype(np.float32)


def make_pair(config, folder):
    """diffusers' AutoencoderKL, and ours read from the folder that it wrote."""
    theirs = theirs_of.their_kl(config, tile=TILE)
    theirs.save_pretrained(folder)
    return theirs, published.read_autoencoder_kl(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(OLD, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(OLD, id="old", marks=pytest.mark.exhaustive),
        pytest.param(NEW, id="new"),
    ],
)
def test_autoencoder_kl_equals_diffusers(config, tmp_path):
    theirs, ours = make_pair(config, tmp_path)
    assert ours.config == config
    assert (ours.scale, ours.shift) == (0.18215, 0.0)
    x = images(2, 16, 16)
    with torch.no_grad():
        posterior = theirs.encode(to_torch(x)).latent_dist
        latents = posterior.mean
        expected = to_numpy(torch.cat([latents, posterior.logvar], 1))
        decoded = to_numpy(theirs.decode(latents).sample)
    assert min(np.abs(expected).max(), np.abs(decoded).max()) > 0.5
    actual = kl_encode(ours.config, ours.params, jnp.asarray(x))
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    actual = kl_decode(ours.config, ours.params, jnp.asarray(to_numpy(latents)))
    np.testing.assert_allclose(actual, decoded, atol=1e-4)


@pytest.mark.exhaustive  # tiles against one pass: tests/models
def test_tiles_are_blended_as_diffusers_does(tmp_path):
    """Where its last tile, which is cut short, has no part."""
    theirs, ours = make_pair(OLD, tmp_path)
    theirs.enable_tiling()
    x = images(1, 2 * EDGE, 2 * EDGE)
    latents = np.random.default_rng(1).standard_normal((1, EDGE, EDGE, 4))
    latents = latents.astype(np.float32)
    with torch.no_grad():
        posterior = theirs.encode(to_torch(x)).latent_dist
        encoded = to_numpy(torch.cat([posterior.mean, posterior.logvar], 1))
        decoded = to_numpy(theirs.decode(to_torch(latents)).sample)
    tiles = {"tile": TILE, "overlap": 2}
    run = jax.jit(autoencoder_kl.encode_tiled, static_argnums=0, static_argnames=tiles)
    actual = run(ours.config, ours.params, jnp.asarray(x), **tiles)
    whole = kl_encode(ours.config, ours.params, jnp.asarray(x))
    same = slice(0, 12)
    assert np.abs(whole - encoded)[:, same, same].max() > 0.01
    np.testing.assert_allclose(actual[:, same, same], encoded[:, same, same], atol=1e-4)
    run = jax.jit(autoencoder_kl.decode_tiled, static_argnums=0, static_argnames=tiles)
    actual = run(ours.config, ours.params, jnp.asarray(latents), **tiles)
    same = slice(0, 24)
    np.testing.assert_allclose(actual[:, same, same], decoded[:, same, same], atol=1e-4)


@pytest.mark.exhaustive
def test_bfloat16_stays_near_float32(pair):
    _, ours = pair
    half = dataclasses.replace(OLD, dtype="bfloat16")
    x = jnp.asarray(images(2, 16, 16))
    full = kl_encode(OLD, ours.params, x)
    drift = jnp.abs(kl_encode(half, ours.params, x) - full).max()
    assert 0 < drift < 0.03 * jnp.abs(full).max()
    latents = full[..., :4]
    full = kl_decode(OLD, ours.params, latents)
    drift = jnp.abs(kl_decode(half, ours.params, latents) - full).max()
    assert 0 < drift < 0.03 * jnp.abs(full).max()


def old_attention(state):
    """The names that diffusers gave its attention before 2023."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {
        re.sub("to_q|to_k|to_v|to_out.0", lambda m: names[m[0]], name): value
        for name, value in state.items()
    }


def latent_diffusion(state, stages, prefix):
    """The layout of latent-diffusion, which counts the decoder's stages backwards."""
    plain = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"}
    plain |= {
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.resnets.1": "mid.block_2",
    }
    plain |= {"mid_block.attentions.0": "mid.attn_1", "group_norm": "norm"}
    plain |= {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    plain |= {"samplers.0.conv": "sample.conv"}
    renamed = {}
    for name, value in state.items():
        if "to_" in name and value.ndim == 2:
            value = value[:, :, None, None]
        for theirs, other in plain.items():
            name = name.replace(theirs, other)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.down", r"down.\1.down", name)
        for stage in range(stages):
            up = f"up.{stages - 1 - stage}."
            name = name.replace(f"up_blocks.{stage}.resnets", f"{up}block")
            name = name.replace(f"up_blocks.{stage}.", up)
        renamed[prefix + name] = value
    return renamed


def test_older_layouts_give_the_same_parameters(pair, tmp_path):
    theirs, ours = pair
    state = theirs.state_dict()
    layouts = {
        "old names": old_attention(state),
        "alone": latent_diffusion(state, 2, ""),
        "inside": latent_diffusion(state, 2, "first_stage_model."),
    }
    config = {"down_block_types": [""] * 2, "up_block_types": [""] * 2}
    loader = diffusers.loaders.single_file_utils
    again = loader.convert_ldm_vae_checkpoint(layouts["inside"], config)
    assert again.keys() == state.keys()
    layouts["inside"] |= {"model.diffusion_model.out.weight": torch.zeros(2)}
    for name, layout in layouts.items():
        file = tmp_path / f"{name}.ckpt.pt"
        torch.save({"state_dict": dict(layout)}, file)
        read = published.read_autoencoder_kl(file, family="sdxl", groups=8)
        assert read.config == ours.config
        assert jax.tree.all(jax.tree.map(np.array_equal, read.params, ours.params))
        assert (read.scale, read.shift) == (0.13025, 0.0)


def test_exported_folders_open_in_diffusers(pair, tmp_path):
    theirs, ours = pair
    published.export_autoencoder(tmp_path, dataclasses.replace(ours, scale=0.5))
    again = diffusers.AutoencoderKL.from_pretrained(tmp_path)
    assert again.config.scaling_factor == 0.5
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.exhaustive
def test_the_command_converts_and_goes_back(pair, tiny, tmp_path):
    _, ours = pair
    theirs, mine, back = (tmp_path / name for name in ("a", "b.safetensors", "c"))
    published.export_autoencoder(theirs, ours)
    told = convert.import_file("autoencoder-kl", theirs, mine)
    assert "encoder.conv_in.weight" in told and "* 0.18215" in told
    read = load_autoencoder(mine)
    assert jax.tree.all(jax.tree.map(np.array_equal, read.params, ours.params))
    convert.export_file("autoencoder-kl", mine, back)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (theirs / name).read_bytes() == (back / name).read_bytes()
    convert.import_file("taesd", tiny[1], mine, family="taesd")
    assert load_autoencoder(mine).note["family"] == "taesd"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """diffusers' AutoencoderTiny with random weights, and the folder it wrote."""
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).eval()
    folder = tmp_path_factory.mktemp("tiny")
    theirs_of.shaken(theirs).save_pretrained(folder)
    return theirs, folder


def check_tiny(ours, encode, decode):
    """Ours against two functions of images [-1, 1] and of latents, in PyTorch."""
    x = images(2, 16, 24)
    with torch.no_grad():
        latents = encode(to_torch(x))
        decoded = to_numpy(decode(4 * latents))
    assert min(latents.abs().max(), np.abs(decoded).max()) > 0.1
    run = jax.jit(tiny_autoencoder.encode, static_argnums=0)
    actual = run(ours.config, ours.params, jnp.asarray(x))
    np.testing.assert_allclose(actual, to_numpy(latents), atol=1e-4)
    run = jax.jit(tiny_autoencoder.decode, static_argnums=0)
    actual = run(ours.config, ours.params, jnp.asarray(4 * to_numpy(latents)))
    np.testing.assert_allclose(actual, decoded, atol=1e-4)


def test_tiny_autoencoder_equals_diffusers(tiny, tmp_path):
    theirs, folder = tiny
    ours = published.read_tiny_autoencoder(folder)
    assert not ours.config.pooled and (ours.scale, ours.shift) == (1.0, 0.0)
    check_tiny(
        ours, lambda x: theirs.encode(x).latents, lambda z: theirs.decode(z).sample
    )
    file = tmp_path / "autoencoder.safetensors"  # both halves, whatever its name
    file.symlink_to(folder / "diffusion_pytorch_model.safetensors")
    read = published.read_tiny_autoencoder(file)
    assert jax.tree.all(jax.tree.map(np.array_equal, read.params, ours.params))
    published.export_autoencoder(tmp_path, ours)
    again = diffusers.AutoencoderTiny.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[n], v) for n, v in theirs.state_dict().items())


def write_halves(folder, halves, name):
    for half, network in halves.items():
        torch.save(network.state_dict(), folder / f"{name}_{half}.pth")


def test_the_authors_layout_is_two_files_of_numbered_layers(tiny, tmp_path):
    theirs, folder = tiny
    ours = published.read_tiny_autoencoder(folder)
    for half, clamp in (("encoder", 0), ("decoder", 1)):
        prefix = f"{half}.layers."
        arrays = {}
        for name, value in theirs.state_dict().items():
            if name.startswith(prefix):
                number, _, rest = name.removeprefix(prefix).partition(".")
                arrays[f"{int(number) + clamp}.{rest}"] = value.numpy()
        save_file(arrays, str(tmp_path / f"taesd_{half}.safetensors"))
    for path in (tmp_path, tmp_path / "taesd_decoder.safetensors"):
        read = published.read_tiny_autoencoder(path, family="taesd")
        assert read.config == ours.config
        assert jax.tree.all(jax.tree.map(np.array_equal, read.params, ours.params))


@pytest.mark.exhaustive
def test_pooled_blocks_equal_a_rebuilt_taef2(tmp_path):
    torch.manual_seed(0)
    halves = {
        half: theirs_of.taef2(half, width=8, latent=6)
        for half in ("encoder", "decoder")
    }
    write_halves(tmp_path, {h: theirs_of.shaken(n) for h, n in halves.items()}, "tae")
    ours = published.read_tiny_autoencoder(tmp_path)
    assert ours.config.pooled and ours.config.latent_channels == 6
    check_taef2(ours, halves)


def check_taef2(ours, halves):
    check_tiny(
        ours,
        lambda x: halves["encoder"]((x + 1) / 2),
        lambda z: 2 * halves["decoder"](z) - 1,
    )


@pytest.mark.skipif(
    "JAXGUIDE_TAEF2" not in os.environ,
    reason="JAXGUIDE_TAEF2 names no folder with the published weights",
)
def test_the_real_taef2_equals_its_rebuilt_network():
    folder = Path(os.environ["JAXGUIDE_TAEF2"])
    halves = {}
    for half in ("encoder", "decoder"):
        state = torch.load(folder / f"taef2_{half}.pth", weights_only=True)
        halves[half] = theirs_of.taef2(half)
        halves[half].load_state_dict(state)
    ours = published.read_tiny_autoencoder(folder, family="taef2")
    check_taef2(ours, halves)


def test_a_wrong_file_is_told_in_one_line(pair, tiny, tmp_path):
    theirs, _ = pair
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    gone = state.pop("decoder.conv_norm_out.bias")
    state["decoder.more.bias"] = gone
    state["encoder.conv_out.bias"] = gone
    file = tmp_path / "vae.safetensors"
    save_file(state, str(file))
    faults = r"1 missing \(decoder.conv_norm_out.bias\); 1 extra \(decoder.more.bias\)"
    with pytest.raises(ValueError, match=f"{faults}; 1 of another shape"):
        published.read_autoencoder_kl(file, family="sd", groups=8)
    with pytest.raises(ValueError, match=r"need a family in \['"):
        published.read_autoencoder_kl(file, groups=8)
    with pytest.raises(ValueError, match="need 16 latent channels, got 4 in vae.saf"):
        published.read_autoencoder_kl(file, family="flux", groups=8)
    with pytest.raises(ValueError, match="need a name in .*, got name='taesd'"):
        published.read_autoencoder_kl(file, family="taesd", groups=8)
    with pytest.raises(ValueError, match="need layers of a tiny encoder, got path="):
        published.read_tiny_autoencoder(file)
    with pytest.raises(ValueError, match="need an AutoencoderKL of diffusers or"):
        published.read_autoencoder_kl(tiny[1])
    alone = tmp_path / "tae_encoder.pth"
    torch.save({"0.weight": torch.zeros(8, 3, 3, 3)}, alone)
    with pytest.raises(ValueError, match="need one file of the decoder, got path="):
        published.read_tiny_autoencoder(alone)


def test_diffusers_has_no_pooled_blocks(tmp_path):
    config = tiny_autoencoder.TinyAutoencoderConfig(pooled=True)
    ours = published.Autoencoder(config, {}, 1.0, 0.0)
    with pytest.raises(ValueError, match="got pooled=True"):
        published.export_autoencoder(tmp_path, ours)
