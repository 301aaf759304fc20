"""The models of the pictures, and what TOML cannot spell in `notes.toml`.

There "method_values:name" names a function of this module, as in any config, and
"method_values:name()" the array that it returns.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxguide as jg
from jaxguide import guidance, paths
from jaxguide.oracle import GaussianMixture
from jaxguide.paths import Array
from jaxguide.sample import jobs
from jaxguide.sample.config import SampleConfig

POINT = (-1.1, -1.3)  # the middle of one component of class 0
RED = (0.9, -0.4, -0.4)  # in [-1, 1]
HISTORY = 3  # steps that `linear_ag` looks back to
MODULE = "method_values:"
FORM = np.zeros((1, 2, 1), np.float32)


@functools.cache
def mixture() -> GaussianMixture:
    """Two classes in the plane, of three components each, that overlap."""
    means = [
        [-1.2, 0.9],
        [-0.5, -0.3],
        [-1.1, -1.3],
        [1.2, 0.8],
        [0.4, 0.3],
        [0.9, -1.2],
    ]
    return GaussianMixture(
        jnp.asarray(means, jnp.float32),
        jnp.asarray([0.3, 0.25, 0.3, 0.3, 0.25, 0.3], jnp.float32),
        (0, 0, 0, 1, 1, 1),
        blocks=(0.02, 0.04, 0.06, 0.04, 0.03, 0.05),
    )


@functools.cache
def demo() -> jobs.SampleJob:
    """The emoji checkpoint and what all demo pictures have in common."""
    return jobs.build_job(
        SampleConfig(checkpoint="emoji", labels="0-5", per_class=3, num_steps=50)
    )


def resolved(settings: Mapping[str, Any], *, fitted: bool = False) -> dict[str, Any]:
    """The settings of a picture with every array that is named in place.

    Arrays take seconds to make: without `fitted`, `FORM` stands in for them.
    """
    lists = ("left", "base", "method")
    return {
        key: [_entry(one, fitted) for one in value] if key in lists else value
        for key, value in settings.items()
    }


def _entry(entry: Mapping[str, Any], fitted: bool) -> dict[str, Any]:
    return {key: _value(value, fitted) for key, value in entry.items()}


def _value(value: Any, fitted: bool) -> Any:
    if not isinstance(value, str) or not value.endswith("()"):
        return value
    name = value.removeprefix(MODULE).removesuffix("()")
    return globals()[name]() if fitted else FORM


# Functions of the toy.


def bayes(x: Array, t: Array, label: Array) -> Array:
    """log p(label | x_t) up to a constant, exactly, [B]."""
    node = paths.Linear().node(t)
    own = mixture().log_density(x, label, node)
    return own - mixture().log_density(x, mixture().null(len(x)), node)


def bayes_of_data(x0: Array) -> Array:
    """log p(x0 | class) of both classes [B, 2]; as likely, so these are logits."""
    node = paths.Linear().node(jnp.zeros((), x0.dtype))
    labels = (jnp.full(len(x0), label, jnp.int32) for label in (0, 1))
    return jnp.stack([mixture().log_density(x0, one, node) for one in labels], axis=1)


def to_point(x0: Array, label: Array) -> Array:
    """Half the squared distance from `POINT`, [B]."""
    del label
    return 0.5 * ((x0 - jnp.asarray(POINT, x0.dtype)[None]) ** 2).sum(axis=1)


def above(x0: Array, label: Array) -> Array:
    """log sigmoid of four times the second coordinate, [B]."""
    del label
    return jax.nn.log_sigmoid(4 * x0[:, 1])


# Functions of the demo.


def mirrored(x0: Array, label: Array) -> Array:
    """A quarter of the squared distance from the mirror image, left for right, [B]."""
    del label
    return 0.25 * ((x0 - x0[:, :, ::-1]) ** 2).sum(axis=(1, 2, 3))


def red(x0: Array, label: Array) -> Array:
    """Minus half the squared distance of mean colour and red, times pixels, [B]."""
    del label
    gap = x0.mean(axis=(1, 2)) - jnp.asarray(RED, x0.dtype)[None]
    return -0.5 * x0.shape[1] * x0.shape[2] * (gap**2).sum(axis=1)


# Coefficients.


@functools.cache
def toy_coefficients() -> np.ndarray:
    """Of `linear_ag` for the toy: scale 3, 100 steps."""
    label = jnp.zeros(64, jnp.int32)
    noise = jg.initial_noise(jg.sample_keys(1, jnp.arange(64)), (2,))
    conds = label, mixture().null(64)
    return _fitted(mixture().network(), noise, conds, jg.uniform(100), 3.0)


@functools.cache
def demo_coefficients() -> np.ndarray:
    """Of `linear_ag` for the demo: scale 2.5, two images per class not shown."""
    job = demo()
    label = jnp.arange(6, 10).repeat(2)
    keys = jg.sample_keys(1, jnp.arange(len(label)))
    noise = jg.initial_noise(keys, job.weights.model.image_shape)
    conds = label, jnp.full_like(label, job.conds["null"])
    return _fitted(job.network, noise, conds, job.grid, 2.5)


def _fitted(
    network: jg.Network,
    noise: Array,
    conds: tuple[Array, Array],
    grid: np.ndarray,
    scale: float,
) -> np.ndarray:
    predict = jax.jit(lambda x, t, label: network.predict(x, t, label))
    quick = dataclasses.replace(network, predict=predict)
    found = guidance.cfg_trajectories(quick, noise, *conds, grid=grid, scale=scale)
    return guidance.fit_linear_ag(*found, history=HISTORY)
