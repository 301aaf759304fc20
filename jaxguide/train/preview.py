"""Pictures of what a network has learnt so far: a few of every class."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxguide import guidance, losses, models, paths, samplers
from jaxguide.samplers import grids


@dataclasses.dataclass(frozen=True)
class Preview:
    """Samples a few images of some classes, from the same noise at every call.

    Args:
        model: the network.
        path, kind: what it was trained on.
        labels: classes to show.
        per_class: images per class.
        scale: of classifier-free guidance; 1 is none. A network that takes the scale
            as an input is given it, and sampled with one evaluation per step.
        t_lo, t_hi: noise times that are guided.
        num_steps: Euler steps.
        seed: of the noise.
    """

    model: models.DiTConfig
    path: paths.Path
    kind: str
    labels: tuple[int, ...]
    per_class: int = 8
    scale: float = 2.0
    t_lo: float = 0.0
    t_hi: float = 1.0
    num_steps: int = 30
    seed: int = 0

    def __call__(self, params: Any) -> np.ndarray:
        """Images [labels, per_class, H, W, C] in about [-1, 1]."""
        shape = self.model.image_shape
        images = np.asarray(_sample(self, params))
        return images.reshape(-1, self.per_class, *shape)

    def check(self) -> None:
        """Raises InputError where sampling would, without sampling."""
        key = jax.eval_shape(functools.partial(jax.random.key, 0))
        params = jax.eval_shape(functools.partial(models.init, self.model), key)
        jax.eval_shape(functools.partial(_sample, self), params)


@functools.partial(jax.jit, static_argnums=0)
def _sample(preview: Preview, params: Any) -> Array:
    model, scale = preview.model, preview.scale
    label = jnp.repeat(jnp.array(preview.labels, jnp.int32), preview.per_class)
    shape = (len(label), *model.image_shape)
    # At t = 1 itself a prediction of noise does not determine the data.
    start = 1.0 if preview.kind in ("velocity", "denoised") else 0.995
    numbers = losses.inputs_at(scale, model.inputs)
    return samplers.generate(
        guidance.Network(
            jax.tree_util.Partial(models.Predictor(model), params, **numbers),
            kind=preview.kind,
            path=preview.path,
        ),
        jax.random.normal(jax.random.key(preview.seed), shape),
        label,
        grid=start * grids.uniform(preview.num_steps),
        sampler=samplers.euler(),
        guidance=guidance.cfg(
            1.0 if model.inputs else scale, t_lo=preview.t_lo, t_hi=preview.t_hi
        ),
        conds={"null": jnp.full_like(label, model.null_label)},
    )
