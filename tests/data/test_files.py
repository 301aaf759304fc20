"""Data from the user's own files, and clear words where they are wrong."""

import gzip
import struct

import numpy as np
import pytest

from jaxguide import data
from jaxguide.data.fashion import FOLDER_VARIABLE, read_idx


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim])
    header += struct.pack(f">{array.ndim}i", *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())


def test_npz_of_grey_images_gets_a_channel_axis(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", pixels=x, y=np.array([0, 2, 1, 1, 0]))
    found = data.npz(tmp_path / "a.npz", images="pixels")
    assert found.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(found.images[..., 0], x)


def test_npz_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="need an existing .npz file"):
        data.npz(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 2, 2, 1), np.uint8), y=np.zeros(1))
    with pytest.raises(ValueError, match="need the fields .*Add 'images'"):
        data.npz(tmp_path / "a.npz", images="images")
    with pytest.raises(ValueError, match="need integer labels, got y=float64"):
        data.npz(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashion_mnist_reads_idx_files_of_a_folder(tmp_path, suffix, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", pixels)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.uint8([9, 0, 3]))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    found = data.fashion_mnist(split="test")
    np.testing.assert_array_equal(found.images[..., 0], pixels)
    assert [found.class_names[i] for i in found.labels] == [
        "ankle boot",
        "t-shirt",
        "dress",
    ]
    with pytest.raises(ValueError, match="need the idx files in a folder"):
        data.fashion_mnist(split="train")


def test_a_broken_idx_file_is_refused(tmp_path):
    (tmp_path / "cut").write_bytes(b"\0\0\x08\x01\0\0\0\x09abc")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("cut", "empty"):
        with pytest.raises(ValueError, match="need a whole uint8 idx file"):
            read_idx(tmp_path / name)


def test_fashion_mnist_falls_back_to_tensorflow_datasets(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr("jaxguide.data.fashion.USUAL_FOLDERS", ())
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with tfds.testing.mock_data(num_examples=12):
        found = data.fashion_mnist(split="train")
    assert found.images.shape == (12, 28, 28, 1)
    assert found.class_names[9] == "ankle boot"
