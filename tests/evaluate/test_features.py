"""Feature networks: batches, devices, colours, and what reports call them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxguide.evaluate import inputs
from jaxguide.evaluate.features import FeatureNetwork, Features, efficientnet_lite0
from jaxguide.models import efficientnet_lite, inception

FAST_COMPILE = True
TRACED = []


def tiny(batch_size: int = 4) -> FeatureNetwork:
    """Means of colours and of rows, and a linear layer."""

    def apply(params, x):
        TRACED.append(x.shape)
        pool = x.mean((1, 2))
        return Features(pool, x.mean(2).reshape(len(x), -1), pool @ params["kernel"])

    kernel = jnp.arange(15.0).reshape(3, 5)
    return FeatureNetwork(
        name="tiny",
        size=3,
        protocol="plain",
        prepare=lambda images: images.astype(jnp.float32) / 255.0,
        apply=apply,
        params={"kernel": kernel},
        batch_size=batch_size,
    )


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_any_number_of_images_gives_a_row_each(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), np.uint8)
    found = tiny().extract(images)
    x = images / 255.0
    np.testing.assert_allclose(found.pool, x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.spatial, x.mean(2).reshape(count, 18), rtol=1e-5)
    kernel = np.arange(15.0).reshape(3, 5)
    np.testing.assert_allclose(found.logits, x.mean((1, 2)) @ kernel, rtol=1e-5)
    assert all(isinstance(leaf, np.ndarray) for leaf in found)
    assert {leaf.dtype for leaf in found} == {np.dtype(np.float32)}


def test_one_compilation_for_all_batches_on_all_devices():
    network, images = tiny(), np.zeros((21, 6, 6, 3), np.uint8)
    TRACED.clear()
    for count in (21, 3, 8):
        network.extract(images[:count])
    assert TRACED == [(len(jax.local_devices()), 6, 6, 3)]


def test_grey_images_are_repeated_to_three_channels():
    grey = np.random.default_rng(0).integers(0, 256, (3, 6, 6), np.uint8)
    wanted = tiny().extract(np.stack([grey] * 3, axis=-1))
    for images in (grey, grey[..., None]):
        np.testing.assert_array_equal(tiny().extract(images).spatial, wanted.spatial)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 6, 6, 3), np.float32),
        np.zeros((2, 3, 6, 6), np.uint8),
        np.zeros((6, 6), np.uint8),
    ],
    ids=["float", "channels first", "one image"],
)
def test_wrong_images_are_named(images):
    message = f"extract: need images uint8 [B, H, W, 1 or 3], got images={images.dtype}"
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny().extract(images)


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="FeatureNetwork: need batch_size >= 1"):
        tiny(batch_size=0)
    with pytest.raises(ValueError, match="efficientnet_lite0: need edge >= 32"):
        efficientnet_lite0(edge=16)


@pytest.mark.exhaustive
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(
    "network, prepare",
    [
        (efficientnet_lite, inputs.efficientnet_input(96)),
        (inception, inputs.inception_input),
    ],
    ids=["efficientnet", "inception"],
)
def test_networks_lower_for_other_devices(network, prepare, platform):
    forward = {efficientnet_lite: efficientnet_lite.apply, inception: inception.layers}

    def run(params, images):
        return forward[network](params, prepare(images))

    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    lowered = export.export(jax.jit(run), platforms=[platform])(
        network.shapes(), images
    )
    grouped = "feature_group_count = 32" in lowered.mlir_module()
    assert grouped == (network is efficientnet_lite)
