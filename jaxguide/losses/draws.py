"""The randomness of a batch: every example has a key and a place of its own.

What is drawn for an example depends on its place in the whole batch and on nothing
else, so a batch that is cut over devices, processes or micro-batches draws the same
noise as the whole one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide.errors import InputError
from jaxguide.paths import as_number


class Draws(NamedTuple):
    """Keys of B examples, which may be a part of a larger batch.

    Attributes:
        keys: PRNG keys [B], one per example.
        place: int32 [B], places in the whole batch.
        total: examples in the whole batch.
        shared: PRNG key [], the same for all parts of the batch.
        stride: between the places of neighbours.
    """

    keys: Array
    place: Array
    total: int
    shared: Array
    stride: int = 1

    def split(self, count: int) -> list[Draws]:
        """`count` independent draws of the same examples."""
        keys = jax.vmap(lambda key: jax.random.split(key, count))(self.keys)
        shared = jax.random.split(self.shared, count)
        return [self._replace(keys=keys[:, i], shared=shared[i]) for i in range(count)]

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Array:
        """Uniform in [low, high), float32 [B]."""
        return jax.vmap(
            lambda key: jax.random.uniform(key, (), jnp.float32, low, high)
        )(self.keys)

    def normal(self, shape: tuple[int, ...] = ()) -> Array:
        """Unit Gaussians, float32 [B, *shape]."""
        return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(
            self.keys
        )

    def integers(self, low: int | Array, high: int | Array) -> Array:
        """Uniform integers in [low, high), int32 [B]."""
        return jax.vmap(lambda key: jax.random.randint(key, (), low, high))(self.keys)


def draws(key: Array | Draws, count: int, *, first: Any = 0, total: int = 0) -> Draws:
    """The draws of `count` examples; `Draws` pass through.

    Args:
        key: PRNG key of the whole batch, or draws that were made before.
        count: examples B.
        first: place of the first one in the whole batch; may be traced.
        total: examples in the whole batch; 0 means `count`.

    Raises:
        InputError: for no key, or draws of another number of examples.
    """
    if isinstance(key, Draws):
        if len(key.place) != count:
            raise InputError(
                f"draws: need draws of {count} examples, got {len(key.place)}. Make "
                "them for the batch that they go with."
            )
        return key
    if not isinstance(key, jax.Array):
        raise InputError(
            f"draws: need a PRNG key, got key={key!r:.60}. Pass jax.random.key(0)."
        )
    each, shared = jax.random.split(key)
    place = first + jnp.arange(count, dtype=jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(each, place)
    return Draws(keys, place, total or count, shared)


TimeSampling = Callable[[Draws], Array]


def _inside(t: Array) -> Array:
    """Away from both ends, where some predictions are undefined."""
    return jnp.clip(t, 1e-5, 1 - 1e-5)


def uniform_t(draws: Draws) -> Array:
    """Noise times, uniform in (0, 1); float32 [B]."""
    return _inside(draws.uniform())


def stratified_t(draws: Draws) -> Array:
    """Uniform noise times, one in each of `total` equal parts of (0, 1); float32 [B].

        t_i = (order_i + u_i) / total,   order a permutation of 0 .. total - 1

    Each time alone is uniform, and together they cover (0, 1) evenly: the loss of a
    batch varies less.

    Source: Kingma et al. 2021, arXiv:2107.00630, App. I.1 (there with one shared u).
    """
    order = jax.random.permutation(draws.shared, draws.total)[draws.place]
    order = order.astype(jnp.float32)
    return _inside((order + draws.uniform()) / draws.total)


def logit_normal_t(
    mean: float = 0.0, std: float = 1.0, *, base: TimeSampling = uniform_t
) -> TimeSampling:
    """Noise times t = sigmoid(n), n ~ N(mean, std^2): more weight on the middle.

    Args:
        mean: of the logit; above 0 favours noisy times.
        std: of the logit, > 0.
        base: uniform times to start from; `stratified_t` spreads them evenly.

    Returns:
        A function from draws to t [B].

    Raises:
        InputError: if `std` is not positive.

    Source: Esser et al. 2024, arXiv:2403.03206, Sec. 3.1.
    """
    if not 0 < as_number(std) < jnp.inf:
        raise InputError(
            f"logit_normal_t: need a finite std > 0, got std={std!r}. Use 1.0."
        )
    if not abs(as_number(mean)) < jnp.inf:
        raise InputError(
            f"logit_normal_t: need a finite mean, got mean={mean!r}. Use 0.0."
        )

    def sample(draws: Draws) -> Array:
        quantile = base(draws)
        return _inside(jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(quantile)))

    return sample
