"""Parameters drawn by NumPy: a fresh network without compiling its initialisers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.models.convolution import parameter_shapes


def drawn(init: Callable, config: Any, *, std: float = 0.2, seed: int = 0) -> Any:
    """What `init(config, key)` would make, every value from N(0, std^2)."""
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> jax.Array:
        return jnp.asarray(std * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(draw, parameter_shapes(init, config))
