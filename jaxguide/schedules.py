"""Numbers that depend on noise time, and the grids of noise times samplers walk.

A `Schedule` is a value (traced: it can be vmapped, differentiated and changed without
recompiling), times an optional shape in `t`, inside windows of noise time (static:
known before sampling, so that work whose weight is zero can be left out).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide.paths import Array, Path


def slack(t: Array) -> float:
    """A time this close to a window's edge counts as lying on it."""
    return 1e-6 if isinstance(t, jax.Array) else 1e-9


@dataclasses.dataclass(frozen=True)
class Window:
    """Half-open `[t_lo, t_hi)` in noise time; `t_hi = 1` includes t = 1."""

    t_lo: float
    t_hi: float
    outside: float

    def contains(self, t: Array) -> Array:
        """Whether t lies inside; exact on host numbers, float32 on traced ones."""
        t = t + slack(t)
        return (t >= self.t_lo) & ((t < self.t_hi) | (self.t_hi >= 1))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`value * shape(t)` where all windows contain t, else that window's `outside`."""

    value: Array  # [] or [B]
    shape: Callable[[Any], Any] | None = None
    windows: tuple[Window, ...] = ()

    def at(self, t: Array, window_t: Array | None = None) -> jax.Array:
        """The number at `t` []; windows are judged at `window_t` (default `t`).

        Returns [] or [B], the shape of `value`.
        """
        value = jnp.asarray(self.value) * 1.0
        if self.shape is not None:
            value = value * jnp.asarray(self.shape(t)).astype(value.dtype)
        for window in self.windows:
            inside = window.contains(t if window_t is None else window_t)
            value = jnp.where(inside, value, jnp.asarray(window.outside, value.dtype))
        return value

    def on_grid(self, times: np.ndarray, window_times: np.ndarray) -> jax.Array:
        """The numbers at host times [N], windows judged in float64; [N] or [N, B]."""
        value = jnp.asarray(self.value) * 1.0
        column = (-1,) + (1,) * value.ndim
        if self.shape is None:
            values = jnp.broadcast_to(value, (len(times), *value.shape))
        else:
            with jax.ensure_compile_time_eval():
                shape = [jnp.asarray(self.shape(t)).astype(value.dtype) for t in times]
            values = value[None] * jnp.stack(shape).reshape(column)
        for window in self.windows:
            inside = window.contains(window_times).reshape(column)
            outside = jnp.asarray(window.outside, values.dtype)
            values = jnp.where(inside, values, outside)
        return values

    def on_host(self, t: float) -> np.ndarray | None:
        """The number at host time `t`, or None while `value` is traced there."""
        for window in reversed(self.windows):
            if not window.contains(t):
                return np.asarray(window.outside)
        if isinstance(self.value, Tracer):
            return None
        with jax.ensure_compile_time_eval():
            shape = 1.0 if self.shape is None else self.shape(t)
            if isinstance(shape, Tracer):
                return None
            return np.asarray(self.value) * np.asarray(shape)

    def neutral_at(self, t: float, neutral: float) -> bool:
        """Whether the number at host time `t` is known to be `neutral`."""
        value = self.on_host(t)
        return value is not None and bool(np.all(value == neutral))


jax.tree_util.register_dataclass(
    Schedule, data_fields=["value"], meta_fields=["shape", "windows"]
)


def is_schedule(value: Any) -> bool:
    """Whether `value` is a `Schedule` (a leaf predicate for `jax.tree`)."""
    return isinstance(value, Schedule)


def constant(value: Array | Callable | Schedule) -> Schedule:
    """`value` as a `Schedule`: a number, an array [B] (one per sample), or f(t).

    A function takes noise time t [] and returns a number; it must be pure, and is
    called on the host for every step of a grid.
    """
    if isinstance(value, Schedule):
        return value
    return Schedule(1.0, shape=value) if callable(value) else Schedule(value)


def window(
    value: Array | Callable | Schedule,
    *,
    outside: float,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Schedule:
    """`value` for noise times in `[t_lo, t_hi)`, else `outside`.

    Args:
        value: number, array [B], function of t, or another schedule (windows nest).
        outside: what holds elsewhere; 1 switches a scale off, 0 a weight.
        t_lo, t_hi: edges in noise time, 0 <= t_lo < t_hi <= 1. The edges are compared
            on the host in float64; `t_hi = 1` includes t = 1.

    Raises:
        ValueError: if the edges are not ordered inside [0, 1].

    >>> float(window(4.0, t_lo=0.2, t_hi=0.8, outside=1.0).at(0.8))
    1.0
    """
    if not 0 <= t_lo < t_hi <= 1:
        raise ValueError(
            f"window: need 0 <= t_lo < t_hi <= 1, got t_lo={t_lo!r}, t_hi={t_hi!r}. "
            "Times are noise times: 1 is noise, 0 is data."
        )
    schedule = constant(value)
    if (t_lo, t_hi) == (0, 1):
        return schedule
    edge = Window(float(t_lo), float(t_hi), float(outside))
    return dataclasses.replace(schedule, windows=(*schedule.windows, edge))


def uniform(num_steps: int, *, last_step: float | None = None) -> np.ndarray:
    """Equal steps from t = 1 to 0; float64 [num_steps + 1].

    With `last_step`, the last step has that length and the others share the rest
    equally: SiT's and REPA's stochastic samplers use 0.04.

    Raises:
        ValueError: if `num_steps` < 1 or `last_step` is outside (0, 1).
    """
    _check_steps("uniform", num_steps)
    if last_step is None:
        return np.linspace(1.0, 0.0, num_steps + 1)
    if not 0 < last_step < 1 or num_steps < 2:
        raise ValueError(
            "uniform: need 0 < last_step < 1 and num_steps >= 2, got "
            f"last_step={last_step!r}, num_steps={num_steps!r}."
        )
    return np.append(np.linspace(1.0, last_step, num_steps), 0.0)


def shifted(num_steps: int, shift: float = 3.0) -> np.ndarray:
    """Equal steps, moved towards noise: t <- shift t / (1 + (shift - 1) t).

    SD3 uses shift 3; FLUX's dynamic `mu` is `shift = exp(mu)`; LightningDiT's 0.3
    (in data time) is 1 / 0.3 here. `shift = 1` is `uniform`. float64 [num_steps + 1].
    """
    _check_steps("shifted", num_steps)
    if not 0 < shift < np.inf:
        raise ValueError(f"shifted: need a finite shift > 0, got shift={shift!r}.")
    t = np.linspace(1.0, 0.0, num_steps + 1)
    return shift * t / (1 + (shift - 1) * t)


def karras(
    num_steps: int,
    path: Path,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> np.ndarray:
    """Karras et al. 2022 (arXiv:2206.00364, Eq. 5): equal steps in sigma^(1/rho).

    `sigma_min`, `sigma_max` are ratios sigma/alpha, so that the grid serves every
    path; the last step goes to t = 0. float64 [num_steps + 1].
    """
    _check_steps("karras", num_steps, least=2)
    if not 0 < sigma_min < sigma_max or not rho > 0:
        raise ValueError(
            "karras: need 0 < sigma_min < sigma_max and rho > 0, got "
            f"sigma_min={sigma_min!r}, sigma_max={sigma_max!r}, rho={rho!r}."
        )
    ends = np.array([sigma_max, sigma_min]) ** (1 / rho)
    sigmas = np.linspace(ends[0], ends[1], num_steps) ** rho
    grid = np.append(np.asarray(path.time(sigmas), np.float64), 0.0)
    return check_grid("karras", grid)


def respaced(num_steps: int, num_timesteps: int = 1000) -> np.ndarray:
    """DiT's evenly respaced table: timesteps round(i (T - 1) / (num_steps - 1)).

    Timestep i sits at t = (i + 1) / T (see `paths.DDPM`). float64 [num_steps + 1].
    """
    _check_steps("respaced", num_steps)
    if num_steps > num_timesteps:
        raise ValueError(
            f"respaced: need num_steps <= num_timesteps, got num_steps={num_steps!r}, "
            f"num_timesteps={num_timesteps!r}."
        )
    stride = (num_timesteps - 1) / max(num_steps - 1, 1)
    steps = (
        [round(i * stride) for i in range(num_steps)]
        if num_steps > 1
        else [num_timesteps - 1]
    )
    return np.append((np.array(steps[::-1]) + 1) / num_timesteps, 0.0)


def check_grid(name: str, grid: Any) -> np.ndarray:
    """`grid` as float64 [N + 1], strictly decreasing inside [0, 1]."""
    if isinstance(grid, Tracer):
        raise TypeError(
            f"{name}: need a grid known on the host, got a traced array. Build it with "
            "numpy outside jit; windows and costs are worked out from it."
        )
    grid = np.asarray(grid, np.float64)
    ok = grid.ndim == 1 and len(grid) > 1 and np.all(np.diff(grid) < 0)
    if not ok or grid[0] > 1 or grid[-1] < 0:
        raise ValueError(
            f"{name}: need a strictly decreasing grid of noise times in [0, 1], got "
            f"grid={np.array2string(grid, threshold=6)}."
        )
    return grid


def _check_steps(name: str, num_steps: int, least: int = 1) -> None:
    if not isinstance(num_steps, int | np.integer) or num_steps < least:
        raise ValueError(
            f"{name}: need an integer num_steps >= {least}, "
            f"got num_steps={num_steps!r}."
        )
