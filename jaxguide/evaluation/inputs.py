"""Pinned ways from uint8 images to the input of a feature network.

Each is a function of images uint8 [B, H, W, 3] that is part of the compiled program. A
distance moves by more than most differences between models when this step changes, so
every one has a name that goes into reports.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Prepare = Callable[[Array], Array]


def efficientnet_input(edge: int) -> Prepare:
    """Images as EfficientNet-Lite was trained: resized, then (value - 127) / 128.

    The resize is bilinear with half-pixel centres, antialiased where it shrinks, and
    does not round.

    Args:
        edge: of the input in pixels.
    """

    def prepare(images: Array) -> Array:
        values = images.astype(jnp.float32)
        shape = (images.shape[0], edge, edge, images.shape[3])
        values = jax.image.resize(
            values, shape, "linear", precision=jax.lax.Precision.HIGHEST
        )
        return (values - 127.0) / 128.0

    return prepare
