"""Samplers driven step by step in float64, with coefficients that stay float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.guidance import Pair
from tests import reference as ref

MEANS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]])
MODEL = ref.Mixture(MEANS, np.array([0.5, 0.6, 0.4]), np.zeros(3, int), np.zeros(0), 0)
NOISE = np.array([[0.3, -0.8], [1.1, 0.4], [-0.6, -0.2]])


def predict(path, x, t):
    """(E[x0 | x], E[noise | x]) of the mixture on any path, float64."""
    node = path.node(t)
    # The same point on the linear path, whose alpha + sigma is 1.
    scale = float(node.alpha + node.sigma)
    return MODEL.moments(x / scale, float(node.sigma) / scale, np.zeros(len(x), int))


def march(sampler, path, grid, *, noise=NOISE, fresh=None, more=None):
    """What `generate` does, one step after the other.

    `fresh` and `more`, the draws of the first and the second stage, are [N, B, n].
    """
    with jax.enable_x64(True):
        terms, stages = sampler.coefficients(path, grid), sampler.stages(grid)
        later = sampler.second_times(path, grid)
        x = jnp.asarray(noise * path.node(grid[0]).sigma)
        memory = sampler.init(x)
        for i in range(len(stages)):
            c = jax.tree.map(lambda leaf, i=i: leaf[i], terms)
            first = Pair(*map(jnp.asarray, predict(path, np.asarray(x), grid[i])))
            drawn = None if fresh is None else jnp.asarray(fresh[i])
            moved, memory = sampler.step(x, memory, first, c, drawn)
            if stages[i] == 2:
                found = predict(path, np.asarray(moved), later[i])
                second = Pair(*map(jnp.asarray, found))
                draws = None if more is None else (drawn, jnp.asarray(more[i]))
                moved = sampler.correct(x, first, second, c, draws)
            x = moved
        return np.asarray(x)
