"""What a sampler is, and the keys of a sample."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Pair
from jaxguide.paths import Array, Path, is_integer

# Folded into a sample's key for its initial noise; steps fold in 0, 1, 2, ...
_INITIAL = 0x7FFFFFFF


class Sampler:
    """A fixed-step sampler. Subclasses write `coefficients` and `step`, and what else
    differs from one evaluation per step without noise or memory.

    Make a subclass a frozen dataclass whose fields are numbers and strings: a sampler
    is static under `jit`, so that equal ones share a compiled program. It has no state
    of its own; what it remembers rides in the scan's carry (`init`).

    All that depends on the grid is worked out before sampling, on the host and in
    float64: coefficients are differences of nearly equal numbers, or exponentials of
    large ones, and lose their digits in float32. `step` is a pure function of the pair
    (denoised, noise), so that one sampler serves velocity, noise, denoised and score
    networks alike.

    >>> import dataclasses
    >>> from jaxguide.paths import Linear
    >>> @dataclasses.dataclass(frozen=True)
    ... class Plain(Sampler):
    ...     def coefficients(self, path, grid):
    ...         node = path.node(grid[1:])
    ...         return node.alpha, node.sigma
    ...     def step(self, x, memory, pair, c, fresh):
    ...         return c[0] * pair.denoised + c[1] * pair.noise, memory
    >>> Plain().stages(np.array([1.0, 0.5, 0.0])).tolist()
    [1, 1]
    """

    @property
    def stochastic(self) -> bool:
        """Whether `step` uses fresh noise; `generate` then needs keys."""
        return False

    @property
    def repeats(self) -> int:
        """How often each step is taken, with `renoise` in between."""
        return 1

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Guided predictions in each step of `grid` [N + 1]: int [N].

        1, or 2 where `correct` is called; times `repeats`.
        """
        return np.ones(len(grid) - 1, int)

    def second_times(self, path: Path, grid: np.ndarray) -> np.ndarray:
        """Noise times of the second stages, float64 [N]; by default the steps' ends."""
        del path
        return grid[1:]

    def coefficients(self, path: Path, grid: np.ndarray) -> Any:
        """A pytree of host arrays, float64 [N]; `step` gets one step's numbers []."""
        raise NotImplementedError

    def init(self, x: Array) -> Any:
        """Memory before the first step, such as a multistep history; x is [B, *D]."""
        del x
        return ()

    def churn(self, x: Array, c: Any, fresh: Array) -> Array:
        """x [B, *D] with noise that is added before the prediction of a step.

        Called of stochastic samplers alone, with the noise that `step` gets too.
        """
        del c, fresh
        return x

    def step(
        self, x: Array, memory: Any, pair: Pair, c: Any, fresh: Array | None
    ) -> tuple[Array, Any]:
        """(next x [B, *D], next memory) from the guided pair at the step's start.

        `fresh` is unit noise [B, *D]; None unless the sampler is stochastic.
        """
        raise NotImplementedError

    def correct(
        self,
        x: Array,
        first: Pair,
        second: Pair,
        c: Any,
        fresh: tuple[Array, Array] | None,
    ) -> Array:
        """The corrected next x [B, *D], in steps of two stages.

        `first` was made at x, `second` at what `step` returned. `fresh` is the noise
        that `step` had and another draw.
        """
        raise InputError(f"{type(self).__name__} has no corrector.")

    def renoise(self, x: Array, c: Any, fresh: Array) -> Array:
        """x [B, *D] back from the step's end to its start, if `repeats` is above 1."""
        raise InputError(f"{type(self).__name__} takes every step once.")


def _are_keys(value: Any, ndim: int) -> bool:
    """Whether `value` is an array [...] of PRNG keys, typed or of the old kind."""
    if not isinstance(value, jax.Array):
        return False
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value.ndim == ndim
    return value.dtype == jnp.uint32 and value.ndim == ndim + 1


def sample_keys(seed: int | Array, indices: Array) -> Array:
    """One PRNG key per sample, [B]: a function of seed and sample index alone.

    Images therefore do not depend on the batch size or the number of devices.

    Args:
        seed: integer in [0, 2^32), or typed PRNG key.
        indices: int [B], the samples' numbers in the whole set.

    Raises:
        InputError: for another seed, of which JAX would keep the lower bits alone, or
            for indices that are no row of integers.
    """
    indices = jnp.asarray(indices)
    if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise InputError(
            "sample_keys: need integer indices [B], got "
            f"indices.shape={indices.shape} of {indices.dtype}. Pass jnp.arange(batch)."
        )
    if _are_keys(seed, 0):
        key = seed
    elif is_integer(seed) and 0 <= seed < 2**32:
        key = jax.random.key(seed)
    else:
        raise InputError(
            f"sample_keys: need an integer seed from 0 to {2**32 - 1} or a key, got "
            f"seed={seed!r}. Pass 0."
        )
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def initial_noise(
    keys: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Unit Gaussian noise [B, *shape], drawn per sample from `keys` [B].

    Raises:
        InputError: for keys that are no row of typed keys, sizes that are no positive
            integers, or a dtype without fractions.
    """
    if not _are_keys(keys, 1):
        raise InputError(
            f"initial_noise: need keys [B], got {type(keys).__name__} of shape "
            f"{np.shape(keys)}. Pass sample_keys(seed, indices)."
        )
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    if not all(is_integer(size) and size > 0 for size in sizes) or sizes is not shape:
        raise InputError(
            f"initial_noise: need shape, sizes of one sample, got shape={shape!r}. "
            "Pass (rows, columns, channels)."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"initial_noise: need a floating dtype, got dtype={dtype!r}. "
            "Pass jnp.float32."
        )

    def draw(key: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, _INITIAL), shape, dtype)

    return jax.vmap(draw)(keys)
