"""Picture files: the crop of ADM, lazy decoding, and broken files."""

import numpy as np
import pytest
from PIL import Image

from jaxguide import data


def read(source, picked, flip=False):
    picked = np.asarray(picked)
    flips = np.full(len(picked), flip)
    return source.read(picked, flip=flips, draws=np.zeros(len(picked), np.uint64))


def rough(height, width):
    """A noisy picture, so far from black and white that no kernel leaves the range."""
    generator = np.random.default_rng(0)
    return generator.integers(80, 175, (height, width, 3), dtype=np.uint8)


def halved(image):
    """Means over squares of four, odd edges cut by area; float64."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    assert image.shape[:2] == (height, width)
    return image.reshape(height // 2, 2, width // 2, 2, -1).mean(axis=(1, 3))


def cubic_matrix(stored, size):
    """Row i: weights of the stored pixels in pixel i; Keys' kernel with a = -1/2,
    widened where the picture shrinks."""
    ratio = stored / size
    wide = max(ratio, 1.0)
    centre = (np.arange(size)[:, None] + 0.5) * ratio
    z = np.abs(np.arange(stored) + 0.5 - centre) / wide
    inner = 1.5 * z**3 - 2.5 * z**2 + 1
    outer = -0.5 * z**3 + 2.5 * z**2 - 4 * z + 2
    weights = np.where(z < 1, inner, np.where(z < 2, outer, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(24, 40, 24), (20, 36, 24), (44, 60, 24), (96, 120, 16), (52, 52, 24)],
)
def test_the_crop_halves_then_interpolates_then_cuts(height, width, size):
    image = rough(height, width)
    wanted = image.astype(np.float64)
    while min(wanted.shape[:2]) >= 2 * size:
        wanted = halved(wanted)
    rows, columns = wanted.shape[:2]
    scale = size / min(rows, columns)
    tall, broad = round(rows * scale), round(columns * scale)
    wanted = np.einsum("ij,jkc->ikc", cubic_matrix(rows, tall), wanted)
    wanted = np.einsum("ij,kjc->kic", cubic_matrix(columns, broad), wanted)
    top, left = (tall - size) // 2, (broad - size) // 2
    wanted = wanted[top : top + size, left : left + size]
    found = data.centre_crop(Image.fromarray(image), size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found, wanted, atol=3)  # up to six roundings


def test_a_square_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(data.centre_crop(Image.fromarray(image), 8), image)
    grey = Image.fromarray(image[..., 0])
    np.testing.assert_array_equal(data.centre_crop(grey, 8), image[..., 0])


@pytest.fixture
def folder(tmp_path):
    """Two classes; picture i of a class has colour i in its left half."""
    for name, green in (("cat", 0), ("ant", 200)):
        (tmp_path / name).mkdir()
        for i in range(3):
            picture = np.full((8, 16, 3), 99, np.uint8)
            picture[:, 4:8] = (10 * i, green, 0)
            picture[:, 8:12] = (255, green, 0)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.PNG")
        (tmp_path / name / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_is_read_by_number_and_mirrored_on_demand(folder):
    source = data.image_folder(folder, size=8)
    assert source.class_names == ("ant", "cat") and len(source) == 6
    assert source.image_shape == (8, 8, 3) and not source.is_latent
    x0, label = read(source, [5, 0, 5])
    assert x0.dtype == np.float32 and label.dtype == np.int32
    np.testing.assert_array_equal(label, [1, 0, 1])
    colours = data.to_uint8(x0)[:, 4, 1]
    np.testing.assert_array_equal(colours, [[20, 0, 0], [0, 200, 0], [20, 0, 0]])
    mirrored, _ = read(source, [5, 0, 5], flip=True)
    np.testing.assert_array_equal(mirrored, x0[:, :, ::-1])


def test_pictures_are_opened_when_asked_for_and_a_broken_one_is_named(folder):
    whole = (folder / "cat" / "1.PNG").read_bytes()
    (folder / "cat" / "1.PNG").write_bytes(whole[: len(whole) // 2])
    (folder / "ant" / "0.PNG").write_text("this is text")
    source = data.image_folder(folder, size=8)
    read(source, [1, 2, 3, 5])
    for broken, name in ((4, "cat/1.PNG"), (0, "ant/0.PNG")):
        with pytest.raises(ValueError, match="need a readable picture") as caught:
            read(source, [1, broken])
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_source_of_pictures_fits_into_memory_unchanged(folder):
    source = data.image_folder(folder, size=8)
    dataset = data.in_memory(source)
    picked = np.arange(6)
    for found, wanted in zip(read(dataset, picked), read(source, picked), strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="got is_latent=True"):
        data.in_memory(data.made_latents(count=2, shape=(2, 2, 1), classes=1))


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="need one sub-folder of pictures per class"):
        data.image_folder(tmp_path, size=4)
    with pytest.raises(ValueError, match="need an existing folder"):
        data.image_folder(tmp_path / "none", size=4)
    with pytest.raises(ValueError, match="need size >= 1, got size=0"):
        data.image_folder(tmp_path, size=0)
