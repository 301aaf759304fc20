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


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (IMAGES.astype(np.uint16), [0, 1, 2], "need images uint8 .* got x=uint16"),
        (IMAGES.astype(bool), [0, 1, 2], "got x=bool"),
        (IMAGES / np.nan, [0, 1, 2], "got x=float64"),
        (IMAGES[0, 0], [0, 1, 2], r"got x=uint8 \[4, 3\]"),
        (IMAGES, [0, 1], r"need one label per image .* got y=\[2\]"),
        (IMAGES[:0], np.zeros(0, int), "at least one image"),
        (IMAGES, [[0], [1], [2]], r"got y=\[3, 1\]"),
        (IMAGES, [0, -1, 2], r"need labels in 0..999999, got y=-1..2"),
        (IMAGES, [0, 1, 600_000_000], r"got y=0..600000000"),
        (IMAGES, np.uint64([0, 1, 2**63]), r"got y=0..9223372036854775808"),
        (IMAGES, np.array([{}, 0, 1]), "got Python objects"),
    ],
)
def test_npz_of_other_shapes_types_and_labels_is_named(tmp_path, x, y, words):
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    with pytest.raises(ValueError, match=words) as caught:
        data.npz(tmp_path / "mine.npz")
    assert "mine.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_npz_in_fortran_order_is_the_same(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(x), y=np.arange(5))
    found = data.npz(tmp_path / "a.npz").images
    np.testing.assert_array_equal(found, x)
    assert found.flags.c_contiguous


def test_a_broken_archive_of_idx_is_refused(tmp_path):
    whole = gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc")
    for name, content in (("cut", whole[:-9]), ("none", b"abc"), ("crc", whole[:-8])):
        path = tmp_path / f"{name}.gz"
        path.write_bytes(content + b"\0" * 8 * (name == "crc"))
        with pytest.raises(ValueError, match="need a whole uint8 idx file"):
            read_idx(path)
