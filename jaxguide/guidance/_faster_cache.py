"""CFG-Cache of FasterCache: the unconditional prediction from a saved difference."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL, RAW, Branch, Guided, View
from jaxguide.guidance._checks import is_whole, static_number
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import (
    NATIVE,
    check_named_space,
    check_number,
    pytree,
)
from jaxguide.guidance._transform import Transform
from jaxguide.guidance.schedules import Schedule
from jaxguide.paths import Array, expand


class CFGCacheState(NamedTuple):
    """The memory of `cfg_cache`."""

    difference: Array  # [B, *D] null - raw at the last full step, in `space`
    low: Array  # [] float32: what its low frequencies are multiplied by
    high: Array  # likewise, the others
    step: Array  # [] int32: the step that `low` and `high` hold for
    ready: Array  # [] bool; False until one full step has been seen


@pytree("scale", "low", "high")
class CFGCache(Transform):
    """See `cfg_cache`."""

    scale: Schedule
    low: Schedule
    high: Schedule
    every: int = 5
    t_reuse: float = 0.641
    axes: tuple[int, int] = (1, 2)
    space: str = NATIVE

    name = "cfg_cache"

    def init(self, x: Array) -> CFGCacheState:
        """An empty memory for states like `x` [B, *D]."""
        one = jnp.ones((), jnp.float32)
        return CFGCacheState(
            jnp.zeros_like(x), one, one, jnp.int32(-1), jnp.zeros((), bool)
        )

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The unconditional prediction."""
        del network
        return (NULL,)

    def live(self, t: float, index: int = 0) -> bool:
        """Whether step `index` evaluates anew: in its turn, or too noisy to reuse."""
        full = index % self.every == 0 or t >= self.t_reuse - schedules.slack(t)
        return full and not self.scale.neutral_at(t, 1.0)

    def apply(
        self,
        guided: Guided,
        state: CFGCacheState,
        here: View,
        *,
        live: bool,
    ) -> tuple[Guided, CFGCacheState]:
        """CFG with the null prediction, or with what the saved difference makes."""
        index = jnp.asarray(here.step.step_index, jnp.int32)
        weight = self.scale.number - 1
        # The difference is saved and not the null prediction, since the raw prediction,
        # which it is added to, is new in every step.
        if live:
            difference = here.read(NULL, self.space) - here.read(RAW, self.space)
            one = jnp.ones_like(state.low)
            saved = difference.astype(state.difference.dtype)
            state = CFGCacheState(saved, one, one, index, jnp.ones((), bool))
        else:
            state = self._grown(state, index)
            known = state.ready & ~here.step.restart
            state = state._replace(ready=known)
            weight = jnp.where(known, weight, jnp.zeros_like(weight))
            difference = self._banded(state).astype(here[RAW].dtype)
        change = here.to_native(-difference, self.space)
        return guided.plus(weight, change), state

    def _grown(self, state: CFGCacheState, index: Array) -> CFGCacheState:
        """Multiplied once more, but only once in a step of two stages."""
        first = state.step != index
        low, high = (
            jnp.where(first, gain * factor.astype(gain.dtype), gain)
            for gain, factor in (
                (state.low, self.low.number),
                (state.high, self.high.number),
            )
        )
        return state._replace(low=low, high=high, step=index)

    def _banded(self, state: CFGCacheState) -> Array:
        """The saved difference with both bands multiplied, float32 [B, *D]."""
        whole = state.difference.astype(jnp.float32)
        low = low_pass(whole, self.axes)
        return expand(state.low, low) * low + expand(state.high, low) * (whole - low)


def low_pass(x: Array, axes: tuple[int, int]) -> Array:
    """The frequencies inside a disk of radius min(H, W) // 5, float32 like `x`.

    Raises:
        InputError: if x has no such axes.
    """
    if max(axes) >= x.ndim:
        raise InputError(
            f"cfg_cache: need two spatial axes in x, got axes={axes!r} for "
            f"x.shape={x.shape}. Use cfg, or cfg_cache(axes=...)."
        )
    sizes = [x.shape[axis] for axis in axes]
    rows, columns = (np.fft.fftfreq(size, 1 / size) for size in sizes)
    inside = rows[:, None] ** 2 + columns[None] ** 2 <= (min(sizes) // 5) ** 2
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)]
    whole = jnp.fft.fftn(x, axes=axes)
    kept = whole * jnp.asarray(inside.reshape(shape), whole.dtype)
    return jnp.fft.ifftn(kept, axes=axes).real.astype(x.dtype)


def cfg_cache(
    scale: Weight,
    *,
    every: int = 5,
    low: float | Callable | Schedule = 1.1,
    high: float | Callable | Schedule = 1.1,
    t_reuse: float = 0.641,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    axes: tuple[int, int] = (1, 2),
    space: str = NATIVE,
) -> CFGCache:
    """CFG whose null prediction is evaluated in every fifth step only (CFG-Cache).

        full step:   D = null - raw;   raw + (scale - 1) (raw - null)
        other steps: D <- low * LP(D) + high * (D - LP(D));   raw - (scale - 1) D

    LP keeps the spatial frequencies inside a disk. The factors pile up from one reused
    step to the next, until a full step. Steps are counted from the sampler's first; in
    an interval that opens between two full steps, nothing is guided until the next one.

    Args:
        scale: as in `cfg`, neutral at 1.
        every: steps from one full step to the next; 1 is `cfg` itself.
        low: factor for low frequencies at times in [0.1, 0.901), 1 elsewhere; number,
            function of noise time, `Schedule`, the same for all samples.
        high: likewise, for the other frequencies at times in [0, 0.301).
        t_reuse: steps at noise times from here on are all full.
        t_lo, t_hi: guidance interval `[t_lo, t_hi)`; scale 1 outside, at no cost.
        axes: the two spatial axes of x; (2, 3) for channels first.
        space: where the difference is saved: "native", or a kind of `paths.KINDS`.

    Returns:
        A transform whose state is one array like x [B, *D] and four numbers; it needs
        the condition `null`.

    Raises:
        InputError: if `every`, `axes`, a number or the window is out of range; at the
            first trace if x has no such axes.

    NFE: +1 in full steps inside the interval, +0 in the others. Memory: one copy of x.
        Through `guide` steps count only at host times outside
        jit; every other call is a full one.
    Source: Lv et al. 2024, FasterCache, arXiv:2410.19355, Eqs. 9 to 11; read against
        diffusers, hooks/faster_cache.py (its defaults; timestep i of 1000 is i / 1000).
    Differs from the source: attention is not cached here. diffusers keeps the spectra
        of both bands where this keeps their sum in space; the numbers are the same.
    """
    check_number("cfg_cache", "scale", scale)
    t_reuse = static_number("cfg_cache", "t_reuse", t_reuse, low=0, high=1)
    check_named_space("cfg_cache", space)
    if not is_whole(every) or every < 1:
        raise InputError(
            f"cfg_cache: need an integer every >= 1, got every={every!r}. 1 is cfg."
        )
    for name, value in (("low", low), ("high", high)):
        check_number("cfg_cache", name, value)
    return CFGCache(
        schedules.window(scale, t_lo=t_lo, t_hi=t_hi, outside=1.0),
        schedules.window(low, t_lo=0.1, t_hi=0.901, outside=1.0),
        schedules.window(high, t_lo=0.0, t_hi=0.301, outside=1.0),
        every,
        t_reuse,
        _checked(axes),
        space,
    )


def _checked(axes: Any) -> tuple[int, int]:
    axes = tuple(axes) if isinstance(axes, tuple | list) else (axes,)
    if (
        len(axes) != 2
        or axes[0] == axes[1]
        or not all(is_whole(axis) and axis > 0 for axis in axes)
    ):
        raise InputError(
            f"cfg_cache: need two different axes >= 1, got axes={axes!r}. "
            "Rows and columns are (1, 2), with channels first (2, 3)."
        )
    return axes[0], axes[1]
