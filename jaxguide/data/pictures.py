"""One reader of pictures: training, evaluation and folders see the same pixels.

    8 bits         as they are; palettes, gray and CMYK become RGB
    16 bits, gray  value / 257, rounded
    16 bits, RGB   their upper 8 bits (as Pillow gives them): up to one level darker
    transparency   over white
    EXIF           turned and mirrored as it says
    animations     the first frame, which is said

Floating point and 32-bit pictures are refused: nothing in them says what is white.
Colour profiles are not looked at.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps

from jaxguide.errors import InputError
from jaxguide.runtime.files import say

# Endings that are looked for in folders.
PICTURES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Part of what names features of pictures: raise it when pixels change.
VERSION = 2
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_PAPER = (255, 255, 255, 255)
_told: set[str] = set()  # folders of animations that were already named


def read_picture(file: str, owner: str = "pictures") -> Image.Image:
    """A picture as RGB; see above.

    Args:
        file: its path.
        owner: who reads, for the error.

    Raises:
        InputError: if it is no readable picture, larger than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`), or not of 8 or 16 bits.
    """
    try:
        with Image.open(file) as picture:
            _say_animated(picture, file)
            ImageOps.exif_transpose(picture, in_place=True)
            return _rgb(picture)
    except Exception as error:  # decoders raise many types for broken files
        reason = " ".join(str(error).split())[:200] or "no reason given"
        known = isinstance(error, InputError)
        raise InputError(
            f"{owner}: need a readable picture, got file={file!r}. "
            f"{reason if known else f'{type(error).__name__}: {reason}'}"
        ) from error


def _rgb(picture: Image.Image) -> Image.Image:
    # What Pillow calls 32 bits is 16 in the formats PNG and PPM, which have no more.
    small = picture.mode == "I" and picture.format in ("PNG", "PPM")
    if picture.mode in _SIXTEEN or small:
        return _of_sixteen(picture)
    if picture.mode in ("I", "F"):
        raise InputError(
            f"Its pixels are of 32 bits (mode {picture.mode!r}), and nothing says what "
            "is white: save it with 8 or 16 bits."
        )
    if picture.mode in _ALPHA or "transparency" in picture.info:
        return on_white(picture)
    return picture.convert("RGB")


def _of_sixteen(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.uint16)
    gray = eight_bits(values, "pictures")
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # the one value that a PNG shows as nothing
        gray = np.where(values == clear, np.uint8(255), gray)
    return Image.fromarray(gray).convert("RGB")


def on_white(picture: Image.Image) -> Image.Image:
    """A picture with transparency as RGB, over white."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)
    colours = picture.convert(straight).convert("RGBA")
    paper = Image.new("RGBA", colours.size, _PAPER)
    return Image.alpha_composite(paper, colours).convert("RGB")


def eight_bits(values: np.ndarray, owner: str) -> np.ndarray:
    """Pixels of 1, 8 or 16 bits as uint8 0..255.

    Args:
        values: bool, uint8, or uint16 0..65535.
        owner: who asks, for the error.

    Raises:
        InputError: for any other type: its range is not known.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:
        return np.rint(values / np.float32(257)).astype(np.uint8)
    raise InputError(
        f"{owner}: need pixels uint8 or uint16, got dtype={values.dtype}. "
        "Scale and round them to 0..255."
    )


def _say_animated(picture: Image.Image, file: str) -> None:
    # Cameras' MPO files hold a preview besides; the first picture is the picture.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        _say_first(os.path.dirname(file), os.path.basename(file))


def _say_first(folder: str, name: str) -> None:
    if folder not in _told:
        _told.add(folder)
        say(
            f"pictures: of animations as {name!r} in {folder!r} the first frame is read"
        )
