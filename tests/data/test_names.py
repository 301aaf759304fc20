"""Data sets by the names that a config uses."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxguide import data
from jaxguide.data import config as data_config


def build(**fields):
    return data_config.build_dataset(data_config.DataConfig(**fields))


def test_every_name_gives_a_source_that_a_batch_can_be_read_from(tmp_path):
    (tmp_path / "pictures" / "one").mkdir(parents=True)
    Image.new("RGB", (9, 7), "red").save(tmp_path / "pictures" / "one" / "a.png")
    images = np.zeros((3, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(3))
    stored = data.Dataset(images, np.arange(3, dtype=np.int32), ("a", "b", "c"))
    assert data.write_latents(stored, data.space_to_depth(4), tmp_path / "latents")
    with tfds.testing.mock_data(num_examples=4):
        sources = {
            (4, 4, 3): build(
                name="image_folder", path=str(tmp_path / "pictures"), size=4
            ),
            (4, 4, 1): build(name="npz", path=str(tmp_path / "set.npz")),
            (1, 1, 16): build(name="latents", path=str(tmp_path / "latents")),
            (8, 8, 4): build(name="made_latents", size=8, classes=5),
            (32, 32, 3): build(name="tfds", path="cifar10"),
            (16, 16, 3): build(name="imagenet", size=16),
            (8, 8, 1): build(name="digits"),
        }
        for shape, source in sources.items():
            assert source.image_shape == shape
            x0, label = data.batch(source, 2, batch_size=5, seed=0, flip=True)
            assert x0.shape == (5, *shape) and x0.dtype == np.float32
            assert label.shape == (5,) and label.dtype == np.int32
            assert 0 <= label.min() and label.max() < source.num_classes
            assert len(source.class_names) == source.num_classes
            assert source.is_latent == (shape in ((1, 1, 16), (8, 8, 4)))
            again, _ = data.batch(source, 2, batch_size=5, seed=0, flip=True)
            np.testing.assert_array_equal(again, x0)


def test_a_name_that_is_none_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'latents'?"):
        build(name="latent")
