"""One interface for all samplers, and the keys of a sample.

A sampler is a frozen dataclass: its coefficients are computed on the host in float64
for a whole grid; its step is a pure function of the guided pair (denoised, noise), so
that it serves velocity, noise, denoised and score networks alike.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.guidance import Pair
from jaxguide.paths import Array, Path

# Folded into a sample's key for its initial noise; steps fold in 0, 1, 2, ...
_INITIAL = 0x7FFFFFFF


class Sampler(Protocol):
    """A fixed-step sampler: static, hashable, without state of its own.

    One whose second stage is not at the step's end also has a method
    `second_times(path, grid)`: its noise times on the host, float64 [N].
    """

    @property
    def stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""
        ...

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Guided predictions in each step of `grid` [N + 1]: int [N], 1 or 2."""
        ...

    def coefficients(self, path: Path, grid: np.ndarray) -> Any:
        """A pytree of host arrays [N], sliced per step."""
        ...

    def init(self, x: Array) -> Any:
        """Memory of the sampler itself (multistep history), or ()."""
        ...

    def step(
        self, x: Array, memory: Any, pair: Pair, c: Any, fresh: Array | None
    ) -> tuple[Array, Any]:
        """(next x, next memory) from the guided pair at the step's start."""
        ...

    def correct(
        self,
        x: Array,
        first: Pair,
        second: Pair,
        c: Any,
        fresh: tuple[Array, Array] | None,
    ) -> Array:
        """The corrected next x; only called for steps of two stages.

        `first` was made at x, `second` at what `step` returned. `fresh` is the noise
        that `step` had and another draw.
        """
        ...


def sample_keys(seed: int | Array, indices: Array) -> Array:
    """One PRNG key per sample, [B]: a function of seed and sample index alone.

    Images therefore do not depend on the batch size or the number of devices.

    Args:
        seed: integer or typed PRNG key.
        indices: int [B], the samples' numbers in the whole set.
    """
    key = jax.random.key(seed) if isinstance(seed, int | np.integer) else seed
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))


def initial_noise(
    keys: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Unit Gaussian noise [B, *shape], drawn per sample from `keys` [B]."""

    def draw(key: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, _INITIAL), shape, dtype)

    return jax.vmap(draw)(keys)


def repeats(sampler: Sampler) -> int:
    """How often each step is taken; more than once by `recurrent` alone."""
    return getattr(sampler, "repeats", 1)


def second_times(sampler: Sampler, path: Path, grid: np.ndarray) -> np.ndarray:
    """Where each step's second stage is evaluated, [N]: at its end, by default."""
    times = getattr(sampler, "second_times", None)
    return grid[1:] if times is None else times(path, grid)
