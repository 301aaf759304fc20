"""Pictures of any size as squares of one size, as DiT and SiT are trained on."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jaxguide.errors import InputError

MOST_PIXELS = 1 << 28


def centre_crop(picture: Image.Image, size: int) -> np.ndarray:
    """ADM's centre crop: halve, resize, cut out the middle.

    While the shorter edge is at least twice `size`, both edges are halved by area
    averaging; then the shorter edge is brought to `size` by bicubic interpolation, up
    or down, and the middle square is cut out. A square picture of that size is left
    alone.

    Args:
        picture: grey ("L") or colour ("RGB").
        size: edge in pixels, >= 1.

    Returns:
        uint8 [size, size] or [size, size, 3].

    Raises:
        InputError: if `size` is not positive, or the picture is a very long strip.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233 (their data loader, which DiT,
        SiT and the reference batches of ImageNet share).
    """
    if size < 1:
        raise InputError(
            f"centre_crop: need size >= 1, got size={size!r}. "
            "Set the edge in pixels, for example size=256."
        )
    # Not one resize: published statistics of ImageNet were made in these two steps, and
    # another filter would change the measured distance.
    while min(picture.size) >= 2 * size:
        half = (picture.width // 2, picture.height // 2)
        picture = picture.resize(half, Image.Resampling.BOX)
    scale = size / min(picture.size)
    whole = (round(picture.width * scale), round(picture.height * scale))
    if whole[0] * whole[1] > MOST_PIXELS:
        raise InputError(
            f"centre_crop: need a picture of at most {MOST_PIXELS} pixels once its "
            f"shorter edge is {size}, got {picture.width} x {picture.height}. Cut off "
            "its ends."
        )
    pixels = np.asarray(picture.resize(whole, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]
