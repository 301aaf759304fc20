"""Pictures of what a network has learnt so far: one row per class."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from jaxguide import models, paths
from jaxguide.data import to_uint8


def write_grid(file: Path, images: np.ndarray, *, columns: int, zoom: int = 2) -> None:
    """Writes images as one PNG.

    Args:
        file: of the picture; its folder is made if missing.
        images: [N, H, W, C] in [-1, 1] with C = 1 or 3.
        columns: pictures per row.
        zoom: edge of a pixel in the file.
    """
    pixels = to_uint8(images)
    count, height, width, channels = pixels.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * columns, height + 2, width + 2, channels), 255, np.uint8)
    sheet[:count, 1:-1, 1:-1] = pixels
    sheet = sheet.reshape(rows, columns, height + 2, width + 2, channels)
    sheet = sheet.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height + 2), columns * (width + 2), channels
    )
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    size = (picture.width * zoom, picture.height * zoom)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.resize(size, Image.Resampling.NEAREST).save(file)


@dataclasses.dataclass(frozen=True)
class Preview:
    """Samples a few images of every class from the same noise each time.

    Args:
        model: the network.
        path, kind: what it was trained on.
        per_class: images per class, one row each.
        scale: of classifier-free guidance; 1 is none.
        num_steps: Euler steps.
        seed: of the noise.
    """

    model: models.DiTConfig
    path: paths.Path
    kind: str
    per_class: int = 8
    scale: float = 2.0
    num_steps: int = 30
    seed: int = 0

    def __call__(self, params: Any) -> np.ndarray:
        """Images [num_classes * per_class, H, W, C] in about [-1, 1]."""
        label = jnp.repeat(jnp.arange(self.model.num_classes), self.per_class)
        shape = (len(label), *self.model.image_shape)
        noise = jax.random.normal(jax.random.key(self.seed), shape)
        return np.asarray(_sample(self, params, noise, label))


@functools.partial(jax.jit, static_argnums=0)
def _sample(preview: Preview, params: Any, noise: Array, label: Array) -> Array:
    times = jnp.linspace(1.0, 0.0, preview.num_steps + 1)
    null = jnp.full_like(label, preview.model.null_label)

    def predict(x: Array, t: Array, label: Array) -> Array:
        output = models.apply(preview.model, params, x, t, label)
        return models.split_sigma(preview.model, output)[0]

    def step(x: Array, times: tuple[Array, Array]):
        t = jnp.full(label.shape, times[0])
        cond, plain = predict(x, t, label), predict(x, t, null)
        guided = plain + preview.scale * (cond - plain)
        node = preview.path.node(t)
        velocity = paths.convert(guided, x, node, preview.kind, "velocity")
        return x + (times[1] - times[0]) * velocity, None

    return jax.lax.scan(step, noise, (times[:-1], times[1:]))[0]
