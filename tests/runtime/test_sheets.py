"""Where everything stands on a sheet."""

import numpy as np
from PIL import Image

from jaxguide.runtime import sheets


def sheet(tmp_path, columns, names, zoom):
    file = tmp_path / "new" / "grid.png"
    sheets.write_sheet(file, columns, names, zoom=zoom)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def boxes(pixels, colour):
    """(top, left, bottom, right) of all pixels of this colour."""
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_every_image_stands_in_its_row_and_column(tmp_path):
    images = np.ones((2, 3, 5, 4, 3), np.float32)
    images[1, 2] = (1, -1, -1)  # red: second row, third of its group
    other = np.ones((2, 1, 5, 4, 3), np.float32)
    other[0, 0] = (-1, -1, 1)  # blue: first row of the second group
    columns = {"first": images, "b": other}
    pixels = sheet(tmp_path, columns, ["bag", "a longer name"], 3)
    top, left, bottom, right = boxes(pixels, (255, 0, 0))
    assert (bottom - top, right - left) == (15, 12)
    top_blue, left_blue, bottom_blue, right_blue = boxes(pixels, (0, 0, 255))
    assert (bottom_blue - top_blue, right_blue - left_blue) == (15, 12)
    assert top - top_blue == 3 * (5 + 1)  # one image and one pixel of gap
    assert left_blue > right
    assert right_blue <= pixels.shape[1] and bottom <= pixels.shape[0]


def test_values_outside_the_range_are_clipped_and_grey_becomes_rgb(tmp_path):
    images = np.array([-3.0, 0.0, 9.0], np.float32).reshape(1, 3, 1, 1, 1)
    pixels = sheet(tmp_path, {"x": np.tile(images, (1, 1, 4, 4, 1))}, ["y"], 1)
    for value in ((0, 0, 0), (128, 128, 128)):
        top, left, bottom, right = boxes(pixels, value)
        assert (bottom - top, right - left) == (4, 4)


def test_a_title_wider_than_its_images_fits(tmp_path):
    narrow = np.ones((1, 1, 2, 2, 1), np.float32)
    short = sheet(tmp_path, {"x": narrow, "y": narrow}, ["row"], 2)
    wide = sheet(tmp_path, {"a very long title": narrow, "y": narrow}, ["row"], 2)
    assert wide.shape[1] > short.shape[1] + 50
    assert wide.shape[0] == short.shape[0]
    assert (wide[:, -2:] == 255).all()


def test_names_are_written_beside_their_rows(tmp_path):
    blank = np.ones((2, 1, 20, 20, 1), np.float32)
    pixels = sheet(tmp_path, {"": blank}, ["", "MMM"], 2)
    rows, _ = np.nonzero((pixels < 128).all(axis=-1))
    block_top = pixels.shape[0] - 2 * (2 * 21) - 6
    assert rows.min() > block_top + 42 and rows.max() < block_top + 84
