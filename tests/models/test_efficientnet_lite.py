"""EfficientNet-Lite0 with its real weights against the PyTorch model of the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sklearn.datasets import load_sample_images

from jaxguide.convert import feature_networks
from jaxguide.evaluate import features
from jaxguide.models import efficientnet_lite

FAST_COMPILE = True
# Rows of ImageNet's classes that the two photos of scikit-learn may be taken for.
PHOTOS = {"china.jpg": 442, "flower.jpg": 985}


@pytest.fixture(scope="module")
def params():
    """The published weights, read as a user's would be."""
    pytest.importorskip("torch", reason="reads the published file")
    pytest.importorskip(feature_networks.PACKAGE, reason="holds the published weights")
    file = feature_networks.find_efficientnet_lite0()
    return feature_networks.load_features("efficientnet-lite0", file)


def theirs(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of the package's own model, built for the size of `x`."""
    torch = pytest.importorskip("torch", reason="the independent model is PyTorch's")
    reason = "the independent model"
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=reason)
    options = {"image_size": x.shape[1]}
    made = package.utils.get_model_params("efficientnet-lite0", options)
    network = package.EfficientNet(*made).eval()
    file = feature_networks.find_efficientnet_lite0()
    network.load_state_dict(torch.load(file, weights_only=True))
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        maps = network.extract_features(pixels)
        return maps.mean((2, 3)).numpy(), network(pixels).numpy()


def assert_agrees(params, x: np.ndarray) -> None:
    """Prints and bounds the largest difference over the largest value."""
    found = jax.jit(efficientnet_lite.apply)(params, x)
    for name, our, their in zip(("pool", "logits"), found, theirs(x), strict=True):
        error = np.abs(our - their).max() / np.abs(their).max()
        print(f"{name} at {x.shape[1]} pixels: {error:.1e} of the largest value")
        assert error < 1e-5, name


@pytest.mark.parametrize("edge", [96, pytest.param(224, marks=pytest.mark.exhaustive)])
def test_features_and_logits_equal_the_packages(params, edge):
    rng = np.random.default_rng(0)
    assert_agrees(params, rng.uniform(-1, 1, (2, edge, edge, 3)).astype(np.float32))


@pytest.mark.exhaustive
@pytest.mark.parametrize("index", [0, 1], ids=list(PHOTOS))
def test_photos_are_recognised(params, index):
    sample = load_sample_images()
    photo, name = sample.images[index], sample.filenames[index].rsplit("/", 1)[-1]
    network = features.efficientnet_lite0(edge=224, batch_size=1)
    x = network.prepare(jnp.asarray(photo[None]))
    assert_agrees(params, np.asarray(x))
    logits = network.extract(photo[None]).logits[0]
    print(f"{name}: class {logits.argmax()} of ImageNet")
    assert logits.argmax() == PHOTOS[name]


@pytest.mark.parametrize(
    "size, edge, stride", [((9, 6), 3, 2), ((8, 8), 5, 2), ((6, 7), 5, 1)], ids=str
)
def test_shifted_products_are_a_grouped_convolution(size, edge, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 6)).astype(np.float32)
    kernel = rng.standard_normal((edge, edge, 6)).astype(np.float32)
    wanted = lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    depthwise = jax.jit(efficientnet_lite.depthwise, static_argnums=2)
    found = depthwise(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"apply: need x \[B, H, W, 3\]"):
        efficientnet_lite.apply({}, jnp.zeros((1, 96, 96, 1)))
