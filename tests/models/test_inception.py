"""Inception, layer by layer, against torch-fidelity's own network."""

import jax
import numpy as np
import pytest

from jaxguide.convert import feature_networks
from jaxguide.evaluate import features
from jaxguide.models import inception
from tests.evaluate import fidelity, made_networks
from tests.lazy import needs

torch = needs("torch", reason="the independent implementation is PyTorch's")

FAST_COMPILE = True


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file as published, of random weights."""
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    state = made_networks.inception_state()
    torch.save({name: torch.from_numpy(leaf) for name, leaf in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def theirs(file):
    """torch-fidelity's network and a dict of what its blocks returned last."""
    module = fidelity.module("feature_extractor_inceptionv3")
    names = ["2048", "logits_unbiased", "logits"]
    network = module.FeatureExtractorInceptionV3("ours", names, str(file))
    seen = {}
    layers = {name: getattr(network, name) for name in inception.BLOCKS}
    layers |= {"stem": network.MaxPool_2, "conv": network.Mixed_6d.branch1x1}
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out.numpy()})
        )

    def run(images):
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
        with torch.no_grad():
            outputs = network(pixels)
        ends = ("pool", "logits_unbiased", "logits")
        return {
            **seen,
            **dict(zip(ends, (out.numpy() for out in outputs), strict=True)),
        }

    return run


@pytest.fixture(scope="module")
def network(file):
    return features.inception(file, protocol="torch-fidelity", batch_size=1)


@pytest.mark.exhaustive
def test_every_layer_equals_torch_fidelitys(network, theirs):
    images = np.random.default_rng(1).integers(0, 256, (1, 83, 61, 3), np.uint8)
    wanted = theirs(images)
    found = jax.jit(lambda p, x: inception.layers(p, network.prepare(x)))(
        network.params, images
    )
    assert found["spatial"].shape == (1, 2023)
    assert np.abs(wanted["logits"] - wanted["logits_unbiased"]).max() > 1.0
    spatial = wanted.pop("conv")[:, :7].transpose(0, 2, 3, 1).reshape(1, -1)
    for name, ours in found.items():
        their = spatial if name == "spatial" else wanted[name]
        their = their.transpose(0, 2, 3, 1) if their.ndim == 4 else their
        assert np.abs(their).max() > 0.5, name
        error = np.abs(ours - their).max() / np.abs(their).max()
        print(f"{name}: {error:.1e} of the largest value")
        assert error < 1e-5, name


@pytest.mark.exhaustive
def test_extracted_features_are_those_that_the_protocols_take(network, theirs):
    images = np.random.default_rng(2).integers(0, 256, (3, 320, 300, 3), np.uint8)
    wanted, found = theirs(images), network.extract(images)
    assert found.spatial.shape == (3, 2023)
    np.testing.assert_allclose(found.logits, wanted["logits_unbiased"], atol=2e-4)
    np.testing.assert_allclose(found.pool, wanted["pool"], atol=2e-4)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"layers: need x \[B, H, W, 3\]"):
        inception.layers({}, np.zeros((1, 299, 299, 1), np.float32))


def test_weights_of_another_inception_are_refused(tmp_path):
    state = {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "torchvision.pth")
    with pytest.raises(ValueError, match="read_inception: need .* missing.*AuxLogits"):
        feature_networks.load_features("inception", tmp_path / "torchvision.pth")
