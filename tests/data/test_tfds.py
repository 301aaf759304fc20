"""TensorFlow Datasets without TensorFlow: made data, and a set prepared here."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxguide import data

SHAPES = ((12, 20), (9, 8), (16, 16), (8, 8), (30, 17))


def picture(i):
    return np.random.default_rng(i).integers(0, 255, (*SHAPES[i], 3), dtype=np.uint8)


class ManySizes(tfds.core.GeneratorBasedBuilder):
    """Five pictures of five sizes, each with its number as label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=5),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(5):
            buffer = io.BytesIO()
            Image.fromarray(picture(i)).save(buffer, "PNG")
            buffer.seek(0)
            yield i, {"image": buffer, "label": i}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    ManySizes(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_images_of_many_sizes_are_cropped_when_read(prepared):
    source = data.open_tfds("many_sizes", size=8, data_dir=prepared)
    assert len(source) == 5 and source.num_classes == 5
    assert source.image_shape == (8, 8, 3) and not source.is_latent
    picked, flip = np.array([3, 0, 3, 2, 1, 4]), np.array([0, 1, 1, 0, 0, 0], bool)
    x0, label = source.read(picked, flip=flip, draws=np.zeros(6, np.uint64))
    assert sorted(set(label.tolist())) == [0, 1, 2, 3, 4]
    for image, number, mirrored in zip(x0, label, flip, strict=True):
        wanted = data.centre_crop(Image.fromarray(picture(number)), 8)
        wanted = wanted[:, ::-1] if mirrored else wanted
        np.testing.assert_array_equal(data.to_uint8(image), wanted)


def test_many_sizes_want_a_size(prepared):
    with pytest.raises(ValueError, match="need size >= 1 .* got size=0"):
        data.open_tfds("many_sizes", data_dir=prepared)


def test_imagenet_goes_by_its_catalogue_name():
    with tfds.testing.mock_data(num_examples=3):
        source = data.open_tfds("imagenet2012", split="validation", size=32)
        x0, label = source.read(
            np.arange(3), flip=np.zeros(3, bool), draws=np.zeros(3, np.uint64)
        )
    assert x0.shape == (3, 32, 32, 3) and source.num_classes == 1000
    assert source.class_names[0] == "n01440764" and label.max() < 1000


def test_imagenet_that_is_not_there_says_what_to_fetch(tmp_path):
    with pytest.raises(ValueError, match="manual_dir should contain") as caught:
        data.open_tfds("imagenet2012", size=256, data_dir=str(tmp_path))
    assert "ILSVRC2012_img_train.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_that_fits_can_be_read_into_memory():
    with tfds.testing.mock_data(num_examples=6):
        found = data.tfds_images("cifar10", split="test")
        grey = data.open_tfds("mnist", size=14)
        x0, _ = grey.read(
            np.arange(2), flip=np.zeros(2, bool), draws=np.zeros(2, np.uint64)
        )
    assert found.images.shape == (6, 32, 32, 3)
    assert found.num_classes == 10 and found.labels.max() < 10
    assert x0.shape == (2, 14, 14, 1)


def test_a_set_that_tfds_lacks_is_one_line():
    with pytest.raises(ValueError, match="got name='no_such_set'") as caught:
        data.open_tfds("no_such_set")
    assert "\n" not in str(caught.value)


def one(image, label=0):
    """The one example of a source with such a record."""
    image = np.asarray(image)
    channels = {1: 1, 2: 1, 3: 3, 4: 3}[image.shape[-1]]
    shape = (*image.shape[:2], channels)
    source = data.TfdsSource([{"image": image, "label": label}], ("a",), shape, False)
    x0, _ = source.read(np.zeros(1, int), flip=np.zeros(1, bool), draws=np.zeros(1))
    return data.to_uint8(x0[0])


def test_sixteen_bits_are_scaled_and_transparency_lies_over_white():
    ramp = np.linspace(0, 65535, 16).astype(np.uint16).reshape(1, 16, 1)
    assert one(ramp)[0, :, 0].tolist() == list(range(0, 256, 17))
    assert one(ramp.repeat(3, 2))[0, :, 2].tolist() == list(range(0, 256, 17))
    assert one(np.array([[[True], [False]]]))[0, :, 0].tolist() == [255, 0]
    clear = np.uint8([[[255, 0, 0, 0], [255, 0, 0, 255]]])
    assert one(clear)[0].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert one(np.uint8([[[0, 51]]]))[0, 0].tolist() == [204]


def test_other_pixels_and_examples_without_a_label_are_refused():
    with pytest.raises(
        ValueError, match="need pixels uint8 or uint16, got dtype=int32"
    ):
        one(np.zeros((2, 2, 3), np.int32))
    with pytest.raises(ValueError, match="need labels in 0..0, got label=-1"):
        one(np.zeros((2, 2, 3), np.uint8), label=-1)


class Foreign(tfds.core.GeneratorBasedBuilder):
    """A set that is never prepared: its features say enough."""

    VERSION = tfds.core.Version("1.0.0")
    IMAGE = tfds.features.Tensor(shape=(2, 2, 3), dtype=np.int32)
    LABEL = tfds.features.ClassLabel(num_classes=2)

    def _info(self):
        features = {"image": self.IMAGE, "label": self.LABEL}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError

    _generate_examples = _split_generators


def test_features_that_are_no_classified_pictures_are_refused(tmp_path, monkeypatch):
    def refused(words):
        with pytest.raises(ValueError, match=words) as caught:
            data.open_tfds("foreign", data_dir=str(tmp_path))
        assert "\n" not in str(caught.value)

    refused(r"need images of 1 to 4 channels of 8 or 16 bits, got image=\[2, 2, 3\]")
    monkeypatch.setattr(Foreign, "IMAGE", tfds.features.Image(shape=(2, 2, 3)))
    monkeypatch.setattr(Foreign, "LABEL", tfds.features.Scalar(np.int64))
    refused("need labels that are classes, got label=Scalar")
