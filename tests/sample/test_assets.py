"""The checkpoints that ship with the package."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import data, losses, models, paths
from jaxguide.data import fashion
from jaxguide.models import load_weights
from jaxguide.sample import build

FAST_COMPILE = True
FILES = sorted(build.ASSETS.glob("*.safetensors"))


def test_they_are_small_enough_to_ship():
    assert {file.stem for file in FILES} >= {"emoji", "fashion"}
    assert sum(file.stat().st_size for file in FILES) < 12e6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_says_what_it_is(file):
    weights = load_weights(file)
    assert len(weights.class_names) == weights.model.num_classes == 10
    assert weights.kind in paths.KINDS and weights.note["steps"] > 0
    held = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
    assert held == models.parameter_count(weights.model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights.params))


def no_download(name, *, split):
    raise ValueError(f"{name} {split} is not on this machine's disk")


def test_the_fashion_weights_know_unseen_images_and_their_classes(monkeypatch):
    monkeypatch.setattr(fashion, "tfds_images", no_download)
    try:
        images = data.fashion_mnist(split="test")
    except ValueError as error:
        pytest.skip(f"needs Fashion-MNIST: {error}")
    weights = load_weights(next(file for file in FILES if file.stem == "fashion"))
    predict = functools.partial(models.apply, weights.model, weights.params)

    @jax.jit
    def loss(label):
        return losses.flow_matching(
            predict,
            (jnp.asarray(data.to_unit(images.images[:64])), label),
            jax.random.key(0),
            path=paths.Linear(),
            kind=weights.kind,
            label_drop=0.0,
            null_label=weights.model.null_label,
        ).mean()

    right = jnp.asarray(images.labels[:64])
    assert float(loss(right)) < 0.35, "about 1.5 for a network of zeros"
    assert float(loss(right)) < float(loss((right + 5) % 10))
