"""What numbers and grids may be; for every room."""

from typing import Any

import numpy as np
from jax.core import Tracer

from jaxguide.errors import InputError


def is_integer(value: Any) -> bool:
    """Whether `value` is a whole number as a type; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_number(value: Any) -> float:
    """`value` as a float; NaN, which is in no range, where it is no single number."""
    try:
        return np.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def check_grid(name: str, grid: Any) -> np.ndarray:
    """`grid` as float64 [N + 1], strictly decreasing inside [0, 1]."""
    if isinstance(grid, Tracer):
        raise InputError(
            f"{name}: need a grid known on the host, got a traced array. Build it with "
            "numpy outside jit; windows and costs are worked out from it."
        )
    try:
        times = np.asarray(grid, np.float64)
    except (TypeError, ValueError):  # words, ragged lists, complex numbers
        times = np.zeros(())
    if times.ndim != 1 or len(times) < 2:
        shape = np.shape(times) or type(grid).__name__
        raise InputError(
            f"{name}: need a strictly decreasing grid of at least two noise times [N + "
            f"1], got grid={shape}. jg.uniform(50) is one."
        )
    inside = (times >= 0) & (times <= 1)  # NaN is in no range
    falls = np.append(np.diff(times) < 0, True)
    if not np.all(inside & falls):
        at = int(np.argmin(inside & falls))
        raise InputError(
            f"{name}: need a strictly decreasing grid of noise times in [0, 1], got "
            f"{_neighbours(times, at)}. Timesteps of 1000 are divided by 1000; "
            "jg.uniform(50) is a grid."
        )
    return times


def _neighbours(times: np.ndarray, at: int) -> str:
    """One entry of a grid and the next, for a message."""
    pair = enumerate(times[at : at + 2], start=at)
    return ", ".join(f"grid[{i}]={float(t)!r}" for i, t in pair)
