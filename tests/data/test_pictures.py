"""The reader of pictures: every kind becomes the RGB that is meant, or is named."""

import numpy as np
import pytest
from PIL import Image

from jaxguide.data import pictures
from jaxguide.errors import InputError

RAMP = np.linspace(0, 65535, 16).astype(np.uint16)[None].repeat(2, 0)


def read(path):
    picture = pictures.read_picture(str(path), "tool")
    assert picture.mode == "RGB"
    return np.asarray(picture)


def saved(folder, picture, ending, **named):
    path = folder / f"x.{ending}"
    picture.save(path, **named)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_gray_are_scaled(tmp_path, ending):
    found = read(saved(tmp_path, Image.fromarray(RAMP), ending))
    assert found.shape == (2, 16, 3)
    np.testing.assert_array_equal(found[0].T, [np.arange(0, 256, 17)] * 3)


def test_sixteen_bits_are_rounded_and_the_clear_value_of_a_png_is_white(tmp_path):
    levels = np.array([[0, 128, 129, 65406, 65407, 4660]], np.uint16)
    picture = Image.fromarray(levels)
    found = read(saved(tmp_path, picture, "png"))[0, :, 0]
    assert found.tolist() == [0, 0, 1, 254, 255, 18]
    opened = Image.open(saved(tmp_path, picture, "png"))
    opened.info["transparency"] = 4660
    assert np.asarray(pictures._rgb(opened))[0, :, 0].tolist()[-1] == 255


def test_sixteen_bit_colours_are_scaled(tmp_path):
    import struct
    import zlib

    def chunk(kind, content):
        total = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + total

    rows = RAMP[:1, :, None].repeat(3, 2).astype(">u2").tobytes()
    header = struct.pack(">2I5B", 16, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(b"\0" + rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(content)
    assert read(tmp_path / "x.png")[0, :, 1].tolist() == list(range(0, 256, 17))


@pytest.mark.parametrize("kind", ["I", "F"])
def test_pixels_without_a_white_are_refused(tmp_path, kind):
    values = np.zeros((2, 2), np.int32 if kind == "I" else np.float32)
    path = saved(tmp_path, Image.fromarray(values), "tif")
    with pytest.raises(InputError, match=r"tool: need a readable .*x.tif.* 32 bits"):
        read(path)


@pytest.mark.parametrize(
    ("mode", "colour", "wanted"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 51), (204, 204, 204)),
    ],
)
def test_transparency_lies_over_white(tmp_path, mode, colour, wanted):
    path = saved(tmp_path, Image.new(mode, (2, 2), colour), "png")
    assert read(path)[0, 0].tolist() == list(wanted)


def test_clear_colours_of_palettes_and_of_rgb_are_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 200, 100, 0])
    palette.putdata([0, 1])
    plain = read(saved(tmp_path, palette, "png"))
    assert plain[0].tolist() == [[9, 8, 7], [200, 100, 0]]
    clear = read(saved(tmp_path, palette, "png", transparency=0))
    assert clear[0].tolist() == [[255, 255, 255], [200, 100, 0]]
    colour = Image.new("RGB", (1, 1), (1, 2, 3))
    path = saved(tmp_path, colour, "png", transparency=(1, 2, 3))
    assert read(path)[0, 0].tolist() == [255, 255, 255]


def test_cmyk_is_what_pillow_makes_of_it(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "tif")
    assert read(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_stand_as_exif_says(tmp_path, turn):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = turn
    found = read(saved(tmp_path, Image.fromarray(pixels), "png", exif=exif))[..., 0]
    mirrored = pixels[:, ::-1]
    upright = {
        1: pixels,
        2: mirrored,
        3: np.rot90(pixels, 2),
        4: np.rot90(mirrored, 2),
        5: pixels.T,
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels.T, 2),
        8: np.rot90(pixels),
    }
    np.testing.assert_array_equal(found, upright[turn])


def test_of_animations_the_first_frame_is_read_and_that_is_said_once(tmp_path, capfd):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "gif", save_all=True, append_images=frames[1:])
    assert read(path)[0, 0].tolist() == read(path)[0, 0].tolist() == [255, 0, 0]
    assert capfd.readouterr().err.count("first frame") == 1


def test_too_large_cut_and_foreign_files_are_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    paths = [saved(tmp_path, noise, "png"), tmp_path / "cut.jpg", tmp_path / "text.gif"]
    noise.save(paths[1])
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    paths[2].write_text("no picture")
    for path, words in zip(
        paths, ("exceeds limit", "truncated", "cannot"), strict=True
    ):
        if words == "exceeds limit":
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
        monkeypatch.undo()


def test_every_ending_is_one_that_pillow_knows():
    assert set(pictures.PICTURES) <= set(Image.registered_extensions())
