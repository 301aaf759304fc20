"""Tiles, shapes and sizes of the autoencoders; the numbers are in the parity tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.models import autoencoder_kl, tiny_autoencoder
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.convolution import enlarge, parameter_count, parameter_shapes
from jaxguide.models.tiling import tiled
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from tests.drawn import drawn

FAST_COMPILE = True
KL = AutoencoderKLConfig(widths=(8, 8), layers=1, groups=4)
TINY = TinyAutoencoderConfig(4, 4, (0, 1), (1, 0))


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.exhaustive
def test_fresh_parameters_make_images_of_about_unit_size():
    config = AutoencoderKLConfig((4,), 1, groups=2, mid_attention=False)
    params = jax.jit(lambda key: autoencoder_kl.init(config, key))(jax.random.key(0))
    decode = jax.jit(autoencoder_kl.decode, static_argnums=0)
    images = decode(config, params, draw(1, 8, 8, 4))
    assert 0.1 < images.std() < 10


@pytest.mark.parametrize(
    "model",
    [pytest.param(autoencoder_kl, marks=pytest.mark.exhaustive), tiny_autoencoder],
)
def test_one_tile_that_covers_all_changes_nothing(model):
    config = KL if model is autoencoder_kl else TINY
    params = drawn(model.init, config)
    images, latents = draw(1, 8, 12, 3), draw(1, 4, 6, 4)
    tiles = {"tile": 6, "overlap": 2}
    whole = model.encode(config, params, images)
    assert jnp.array_equal(model.encode_tiled(config, params, images, **tiles), whole)
    whole = model.decode(config, params, latents)
    assert whole.shape == images.shape and whole.std() > 0
    assert jnp.array_equal(model.decode_tiled(config, params, latents, **tiles), whole)


@pytest.mark.parametrize(
    ("shape", "overlap"),
    [
        ((7, 7), 2),
        ((9, 14), 6),
        pytest.param((16, 5), 0, marks=pytest.mark.exhaustive),
        pytest.param((20, 9), 3, marks=pytest.mark.exhaustive),
    ],
)
def test_a_function_of_single_pixels_does_not_see_tiles(shape, overlap):
    x = draw(2, *shape, 3)
    actual = jax.jit(lambda x: tiled(enlarge, x, tile=8, overlap=overlap, cell_out=2))
    np.testing.assert_allclose(actual(x), enlarge(x), atol=1e-6)
    halved = lambda x: x[:, ::2, ::2]  # noqa: E731
    large = enlarge(x)
    found = tiled(halved, large, tile=8, overlap=overlap, cell_in=2)
    np.testing.assert_allclose(found, x, atol=1e-6)


def test_neighbouring_tiles_fade_into_each_other():
    """Tiles of constants: a straight line over what two of them share."""

    def constant(x):
        return jnp.broadcast_to(x[:, :1, :1], x.shape)  # the first pixel, everywhere

    x = jnp.arange(12.0)[None, None, :, None]
    found = tiled(constant, x, tile=8, overlap=2)[0, 0, :, 0]
    # Tiles begin at 0 and 4, and share 4 pixels.
    ramp = [0, 1, 2, 3]
    np.testing.assert_allclose(found, [0] * 4 + ramp + [4] * 4, atol=1e-6)


def test_all_tiles_are_one_program():
    """The network stands once in the program, however many tiles there are."""
    params = drawn(autoencoder_kl.init, KL)

    def convolutions(edge):
        def decode(latents):
            return autoencoder_kl.decode_tiled(KL, params, latents, tile=4, overlap=1)

        return str(jax.make_jaxpr(decode)(draw(1, edge, edge, 4))).count(
            "conv_general_dilated["
        )

    assert convolutions(4) == convolutions(9) == convolutions(15) > 0


def test_tiles_need_a_tenth_of_the_memory():
    config = AutoencoderKLConfig((32, 32), 1, groups=4, mid_attention=False)
    shapes = parameter_shapes(autoencoder_kl.init, config)

    def scratch(**tiles):
        model = autoencoder_kl
        decode = model.decode_tiled if tiles else model.decode
        run = jax.jit(lambda params, x: decode(config, params, x, **tiles))
        memory = run.lower(shapes, draw(1, 48, 48, 4)).compile().memory_analysis()
        return memory.temp_size_in_bytes

    assert scratch(tile=12, overlap=3) < 0.15 * scratch()


@pytest.mark.exhaustive
def test_published_sizes():
    """83,653,863 and 2,445,063 values, as counted in PyTorch."""
    count = parameter_count(autoencoder_kl.init, AutoencoderKLConfig())
    assert count == 83_653_863
    newer = AutoencoderKLConfig(
        latent_channels=16, quant_conv=False, post_quant_conv=False
    )
    assert parameter_count(autoencoder_kl.init, newer) == 83_819_683
    count = parameter_count(tiny_autoencoder.init, TinyAutoencoderConfig())
    assert count == 2_445_063
    assert AutoencoderKLConfig().factor == TinyAutoencoderConfig().factor == 8


def test_log_variances_are_clipped():
    params = drawn(autoencoder_kl.init, KL)
    scaled = dict(params["encoder"]["quant"])
    scaled["kernel"] = 1e4 * scaled["kernel"]
    params = {"encoder": params["encoder"] | {"quant": scaled}}
    for run in (autoencoder_kl.encode, autoencoder_kl.encode_tiled):
        mean, log_variance = jnp.split(run(KL, params, draw(1, 8, 8, 3)), 2, axis=-1)
        assert log_variance.min() == -30 and log_variance.max() == 20
        assert jnp.abs(mean).max() > 100


@pytest.mark.exhaustive
def test_half_precision_inputs_keep_their_type():
    config = dataclasses.replace(TINY, dtype="bfloat16")
    params = drawn(tiny_autoencoder.init, config)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    images = tiny_autoencoder.decode(config, params, draw(1, 4, 4, 4))
    assert images.dtype == jnp.float32
    latents = tiny_autoencoder.encode(config, params, images.astype(jnp.bfloat16))
    assert latents.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: AutoencoderKLConfig(widths=(48,)), "need widths of multiples of gro"),
        (lambda: AutoencoderKLConfig(widths=()), "got widths="),
        (lambda: AutoencoderKLConfig(layers=0), "need layers >= 1, got layers=0"),
        (lambda: AutoencoderKLConfig(dtype="int8"), "got dtype='int8'"),
        (lambda: TinyAutoencoderConfig(width=0), "need width >= 1, got width=0"),
        (lambda: TinyAutoencoderConfig(encoder_blocks=(1,)), "as long as encoder_b"),
        (lambda: autoencoder_kl.encode(KL, {}, draw(1, 3, 4, 3)), "that 2 divides"),
        (lambda: autoencoder_kl.decode(KL, {}, draw(1, 4, 4, 3)), r"\[B, h, w, 4\]"),
        (lambda: tiny_autoencoder.encode(TINY, {}, draw(4, 4, 3)), "need images"),
        (lambda: tiny_autoencoder.decode(TINY, {}, draw(4, 4)), "need latents"),
        (lambda: tiled(enlarge, draw(1, 4, 4, 3), tile=2, overlap=2), "overlap < tile"),
    ],
)
def test_mistakes_are_named(make, line):
    with pytest.raises(ValueError, match=line):
        make()
