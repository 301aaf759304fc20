"""Pinned ways from uint8 images to the input of a feature network.

Each is a function of images uint8 [B, H, W, 3] that is part of the compiled program. A
distance moves by more than most differences between models when this step changes, so
every one has a name that goes into reports.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Prepare = Callable[[Array], Array]
INCEPTION_EDGE = 299


def legacy_resize(values: Array, edge: int) -> Array:
    """Bilinear resize as TensorFlow 1 did it, which is how FID is defined.

        out[i] = in[k] + (in[k + 1] - in[k]) · (p - k),  p = i · size / edge,  k = ⌊p⌋

    Corners, not centres, of pixels are aligned, the last pixel is repeated, and nothing
    is antialiased: shrinking drops pixels.

    Args:
        values: float32 [B, H, W, C].
        edge: of the result.

    Returns:
        float32 [B, edge, edge, C].

    Source: TensorFlow 1, ResizeBilinear with align_corners=False and
        half_pixel_centers=False.
    """
    for axis in (2, 1):
        low, high, weight = _places(values.shape[axis], edge)
        shape = [edge if axis == other else 1 for other in range(4)]
        below, above = (jnp.take(values, index, axis) for index in (low, high))
        values = below + (above - below) * weight.reshape(shape)
    return values


def _places(size: int, edge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two neighbours and the weight of the second, in float32 as TensorFlow's."""
    place = np.arange(edge, dtype=np.float32) * np.float32(size / edge)
    low = np.floor(place).astype(np.int32)
    return low, np.minimum(low + 1, size - 1), place - low.astype(np.float32)


def inception_input(images: Array) -> Array:
    """Images as the graph of 2015 takes them: resized to 299, then (value - 128) / 128.

    Values are 0 .. 255, and are not rounded after the resize. ADM's evaluator and
    torch-fidelity agree in this step (the latter repeats TensorFlow's resize), and in
    taking logits without bias; they differ in what they compute from the features.

    Args:
        images: uint8 [B, H, W, 3].

    Returns:
        float32 [B, 299, 299, 3].
    """
    return (legacy_resize(images.astype(jnp.float32), INCEPTION_EDGE) - 128.0) / 128.0


# What Inception is fed with under each protocol of evaluation.
INCEPTION_INPUTS: dict[str, Prepare] = {
    "adm": inception_input,
    "torch-fidelity": inception_input,
}


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
