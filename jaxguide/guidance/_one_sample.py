"""Functions of one sample, without a batch axis: the idiom of Equinox.

Inside, a sample is a batch of one. So statistics of a sample are those of the sample,
where under `jax.vmap` its first axis would be taken for the batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._chain import Chain
from jaxguide.guidance._network import Network
from jaxguide.paths import Array


def batch_of_one(tree: Any) -> Any:
    """Every leaf with a batch axis [1, ...]."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)


def only_one(tree: Any) -> Any:
    """Every leaf [1, ...] without its batch axis."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def for_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """A prediction function of one sample as one of a batch."""

    @functools.wraps(function)
    def rows(x: Array, t: Array, cond: Any, **taps: Any) -> Any:
        each = functools.partial(function, **taps)
        axes = (0, 0 if jnp.ndim(t) else None, 0)
        return jax.vmap(each, in_axes=axes)(x, t, cond)

    return rows


def check_alone(parts: Chain, network: Network) -> None:
    """Refuses transforms whose attention sees two rows of the batch at once."""
    for part in parts.parts:
        for branch in part.branches(network):
            if branch.change.beside() is not None:
                raise InputError(
                    f"{branch.change.name}: need a network that sees two conditions "
                    "side by side in its batch, got batch_ndim=0. Use a function of a "
                    "batch and batch_ndim=1."
                )
