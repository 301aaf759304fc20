"""A checkpoint of random numbers, small enough to sample in a moment."""

import functools

import jax
import numpy as np

from jaxguide import models
from jaxguide.models import Weights, save_weights

MODEL = models.DiTConfig(
    image_size=8, channels=1, patch=4, width=16, depth=3, heads=2, num_classes=3
)
NAMES = ("bag", "coat", "shoe")


def write(file, *, seed=0, model=MODEL):
    """Writes it to `file` and returns the file's name."""
    shapes = jax.eval_shape(functools.partial(models.init, model), jax.random.key(0))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: (0.2 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes
    )
    note = {"steps": 0, "seed": seed}
    save_weights(file, Weights(params, model, "linear", "velocity", NAMES, note))
    return str(file)
