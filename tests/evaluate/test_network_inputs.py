"""From pixels to the input of a network: the one step everybody does differently."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxguide.evaluate import inputs
from tests.evaluate import fidelity

FAST_COMPILE = True
SIZES = [(32, 32), (96, 41), (299, 299), (331, 512)]


def slow_resize(image: np.ndarray, edge: int) -> np.ndarray:
    """TensorFlow 1's rule for one image [H, W, C], pixel by pixel, in float64."""
    out = np.empty((edge, edge, image.shape[2]))
    height, width = image.shape[:2]
    for row in range(edge):
        down = row * height / edge
        top, bottom = int(down), min(int(down) + 1, height - 1)
        for column in range(edge):
            right = column * width / edge
            first, last = int(right), min(int(right) + 1, width - 1)
            a, b = down - top, right - first
            upper = (1 - b) * image[top, first] + b * image[top, last]
            lower = (1 - b) * image[bottom, first] + b * image[bottom, last]
            out[row, column] = (1 - a) * upper + a * lower
    return out


@pytest.fixture(params=SIZES, ids=str)
def images(request):
    shape = (2, *request.param, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("size", [(7, 12), (60, 50)], ids=str)
def test_the_legacy_resize_is_tensorflows_rule(size):
    image = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    found = inputs.legacy_resize(image[None], 29)
    np.testing.assert_allclose(found[0], slow_resize(image, 29), atol=1e-3)


def test_inceptions_input_is_torch_fidelitys(images):
    module = fidelity.module("interpolate_compat_tensorflow")
    torch = pytest.importorskip("torch", reason="torch-fidelity needs torch")
    wanted = module.interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(images.transpose(0, 3, 1, 2)).float(),
        size=(299, 299),
        align_corners=False,
    )
    wanted = ((wanted - 128) / 128).numpy().transpose(0, 2, 3, 1)
    for name in ("adm", "torch-fidelity"):
        found = jax.jit(inputs.INCEPTION_INPUTS[name])(images)
        np.testing.assert_allclose(found, wanted, atol=2e-6, err_msg=name)


def test_an_image_of_the_right_size_is_only_scaled():
    images = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    wanted = (images.astype(np.float32) - 128) / 128
    np.testing.assert_array_equal(inputs.inception_input(images), wanted)
    small, scaled = images[:, :96, :96], inputs.efficientnet_input(96)
    wanted = (small.astype(np.float32) - 127) / 128
    np.testing.assert_allclose(scaled(small), wanted, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (240, 150)], ids=str)
def test_efficientnets_resize_is_pillows_before_rounding(size):
    pixels = np.random.default_rng(0).uniform(0, 255, size).astype(np.float32)
    shape = Image.Resampling.BILINEAR
    wanted = np.asarray(Image.fromarray(pixels).resize((96, 96), shape))
    values = np.repeat(pixels[None, :, :, None], 3, axis=3)
    found = inputs.efficientnet_input(96)(values) * 128 + 127
    np.testing.assert_allclose(found[0, :, :, 0], wanted, atol=1e-2)
