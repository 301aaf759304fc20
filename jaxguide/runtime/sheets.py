"""Labelled sheets of images, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER = (40, 40, 40), (255, 255, 255)


def write_sheet(
    file: Path,
    columns: Mapping[str, np.ndarray],
    row_names: Sequence[str],
    *,
    zoom: int = 2,
) -> None:
    """Rows are classes, column groups are methods, with their names written beside.

    Args:
        file: of the PNG; its folder is made if missing.
        columns: title -> images [rows, n, H, W, C] in [-1, 1], C = 1 or 3; others are
            taken for latents and shown as false colours.
        row_names: one per row.
        zoom: edge of an image pixel in the file.
    """
    height = max(12, 5 * zoom)
    font = ImageFont.load_default(size=height)
    gap = 3 * zoom
    blocks = [_block(images, zoom) for images in columns.values()]
    left = gap + max(int(font.getlength(name)) for name in row_names) + gap
    # A title may be wider than its images.
    widths = [
        max(block.width, int(font.getlength(title)))
        for title, block in zip(columns, blocks, strict=True)
    ]
    top = int(1.6 * height) + gap
    size = (left + sum(widths) + len(widths) * 2 * gap, top + blocks[0].height + gap)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    x = left
    for title, block, width in zip(columns, blocks, widths, strict=True):
        draw.text((x, gap), title, INK, font)
        sheet.paste(block, (x, top))
        x += width + 2 * gap
    height = blocks[0].height / len(row_names)
    for row, name in enumerate(row_names):
        middle = top + (row + 0.5) * height
        draw.text((gap, middle), name, INK, font, anchor="lm")
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def false_colours(latents: np.ndarray) -> np.ndarray:
    """The first three channels of latents as colours; latents [..., C] to [..., 3].

    Latents of about unit variance are shown from -3 to 3; fewer than three channels
    are repeated.
    """
    picked = np.arange(3) % latents.shape[-1]
    return np.asarray(latents, np.float32)[..., picked] / 3


def _block(images: np.ndarray, zoom: int) -> Image.Image:
    """Images [rows, n, H, W, C] as one picture with one pixel between them."""
    images = images if images.shape[-1] in (1, 3) else false_colours(images)
    pixels = np.clip(np.rint((images.astype(np.float32) + 1) * 127.5), 0, 255)
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    rows, count, height, width, _ = pixels.shape
    tiles = np.full((rows, count, height + 1, width + 1, 3), 255, np.uint8)
    tiles[:, :, :height, :width] = pixels
    flat = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 1), -1, 3)
    picture = Image.fromarray(flat)
    size = (picture.width * zoom, picture.height * zoom)
    return picture.resize(size, Image.Resampling.NEAREST)
