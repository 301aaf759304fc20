"""Autoencoders in files, and the scale of their latents."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import data
from jaxguide.data import encode
from jaxguide.models import autoencoder_kl, load_weights, tiny_autoencoder
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.autoencoders import (
    FAMILIES,
    Autoencoder,
    decode_latents,
    decoder_of,
    encode_moments,
    load_autoencoder,
    save_autoencoder,
)
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from tests.drawn import drawn

FAST_COMPILE = True
KL = AutoencoderKLConfig(widths=(8, 8), layers=1, groups=4)
TINY = TinyAutoencoderConfig(4, 4, (0, 1), (1, 0))


def make(config):
    model = autoencoder_kl if config is KL else tiny_autoencoder
    params = drawn(model.init, config)
    return Autoencoder(config, params, 0.5, 0.25, {"source": "drawn"})


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("config", [KL, TINY], ids=["kl", "tiny"])
def test_a_file_keeps_everything(tmp_path, config):
    ours, file = make(config), tmp_path / "new" / "vae.safetensors"
    save_autoencoder(file, ours)
    read = load_autoencoder(file)
    assert jax.tree.structure(read) == jax.tree.structure(ours)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, read, ours))
    assert read.config == config and read.note == {"source": "drawn"}
    assert (read.scale, read.shift, read.factor) == (0.5, 0.25, 2)
    save_autoencoder(file, ours, dtype="float16")
    halves = load_autoencoder(file).params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-6), halves, ours.params
    )


def test_latents_are_scaled_as_the_source_of_latents_does():
    ours = make(TINY)
    images = jnp.tanh(draw(2, 4, 4, 3))
    latents = tiny_autoencoder.encode(TINY, ours.params, images)
    moments = encode_moments(ours, images)
    np.testing.assert_allclose(moments[..., :4], latents, atol=1e-6)
    assert jnp.isneginf(moments[..., 4:]).all()
    x0 = (latents - 0.25) * 0.5
    expected = tiny_autoencoder.decode(TINY, ours.params, latents)
    np.testing.assert_allclose(
        decode_latents(ours, x0), jnp.clip(expected, -1, 1), atol=1e-5
    )


@pytest.mark.exhaustive
def test_decoding_passes_through_jit_with_weights_as_arguments():
    ours, x0 = make(KL), draw(1, 4, 4, 4)
    decode = jax.tree_util.Partial(decode_latents, ours)
    found = jax.jit(lambda decode, x0: decode(x0))(decode, x0)
    np.testing.assert_allclose(found, decode_latents(ours, x0), atol=1e-6)
    assert jnp.abs(found).max() <= 1
    large = draw(1, 4, 6, 4)
    tiled = decode_latents(ours, large, tile=4)
    latents = large / 0.5 + 0.25
    run = functools.partial(autoencoder_kl.decode_tiled, KL, tile=4, overlap=1)
    expected = jax.jit(run)(ours.params, latents)
    np.testing.assert_allclose(tiled, jnp.clip(expected, -1, 1), atol=1e-5)


def test_a_cache_of_latents_keeps_scale_and_shift(tmp_path):
    ours = make(KL)
    file = tmp_path / "vae.safetensors"
    save_autoencoder(file, ours)
    encoder = encode.autoencoder(str(file))
    assert (encoder.scale, encoder.shift) == (0.5, 0.25)
    images = np.asarray(jnp.tanh(draw(4, 8, 8, 3)))
    expected = encode_moments(ours, jnp.asarray(images))
    np.testing.assert_allclose(jax.jit(encoder.encode)(images), expected, atol=1e-6)
    assert isinstance(encoder, data.Encoder)
    assert encoder.name == "autoencoder(vae.safetensors)"


def test_families_have_the_published_factors():
    scales = {name: tuple(family[:3]) for name, family in FAMILIES.items()}
    assert scales["sd"] == (4, 0.18215, 0.0)
    assert scales["sdxl"] == (4, 0.13025, 0.0)
    assert scales["sd3"] == (16, 1.5305, 0.0609)
    assert scales["flux"] == (16, 0.3611, 0.1159)
    tiny = [family for name, family in FAMILIES.items() if name.startswith("tae")]
    assert [family.channels for family in tiny] == [4, 4, 16, 16, 32]
    assert {(family.scale, family.shift) for family in tiny} == {(1.0, 0.0)}


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(ValueError, match="load_autoencoder: need an existing file"):
        load_autoencoder(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="save_autoencoder: need dtype in"):
        save_autoencoder(tmp_path / "x", make(TINY), dtype="int8")
    strange = dataclasses.replace(make(TINY), note={"made": "elsewhere"})
    save_autoencoder(tmp_path / "x", strange)
    with pytest.raises(
        ValueError, match="got format='jaxguide-autoencoder-1' in .*It holds an auto"
    ):
        load_weights(tmp_path / "x")


def test_decoders_fit_their_latents(tmp_path):
    file = tmp_path / "vae.safetensors"
    save_autoencoder(file, make(TINY))
    decode, x0 = decoder_of("sample", file, 4), draw(1, 4, 4, 4)
    np.testing.assert_array_equal(decode(x0), decode_latents(make(TINY), x0))
    line = r"sample: need an autoencoder of 16 latent channels, got 4 .* latents, flux"
    with pytest.raises(ValueError, match=line):
        decoder_of("sample", file, 16, hint="flux")
