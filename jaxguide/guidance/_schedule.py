"""Numbers that depend on noise time.

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

from jaxguide.errors import InputError
from jaxguide.guidance._checks import check_value, static_number
from jaxguide.paths import ArrayLike


def slack(t: ArrayLike) -> float:
    """A time this close to a window's edge counts as lying on it."""
    # Rounding puts a grid time beside the edge that it means: about 1e-7 off in
    # float32, 1e-16 in float64. Both limits lie far above that and far below any step.
    return 1e-6 if isinstance(t, jax.Array) else 1e-9


@dataclasses.dataclass(frozen=True)
class Window:
    """Half-open `[t_lo, t_hi)` in noise time; `t_hi = 1` includes t = 1."""

    t_lo: float
    t_hi: float
    outside: float

    def contains(self, t: Any) -> Any:
        """Whether t lies inside; exact on host numbers, float32 on traced ones."""
        # The same shift at both edges: of two windows that touch, every time lies in
        # exactly one.
        t = t + slack(t)
        return (t >= self.t_lo) & ((t < self.t_hi) | (self.t_hi >= 1))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`value * shape(t)` where all windows contain t, else that window's `outside`.

    With `around` c the shape acts on the distance from it, `c + (value - c) shape(t)`;
    with `least` the number inside the windows is never below that.
    """

    value: ArrayLike  # [] or [B]
    shape: Callable[[Any], Any] | None = None
    windows: tuple[Window, ...] = ()
    around: float = 0.0
    least: float | None = None

    @property
    def number(self) -> jax.Array:
        """The number at this step, [] or [B]: what transforms compute with.

        Raises:
            InputError: if the schedule still depends on time; see `Chain.at`.
        """
        if self.shape is not None or self.windows:
            raise InputError(
                f"Schedule: need a schedule at one time, got {self!r}. Read `number` "
                "inside `apply`, where Chain.at has put in the time."
            )
        return jnp.asarray(self.value)

    def at(self, t: ArrayLike, window_t: ArrayLike | None = None) -> jax.Array:
        """The number at `t` []; windows are judged at `window_t` (default `t`).

        Returns [] or [B], the shape of `value`.
        """
        # A float first: an integer value would round the shape and `outside` to its
        # own dtype.
        value = jnp.asarray(self.value) * 1.0
        window_t = t if window_t is None else window_t
        if self.shape is not None:
            shape = self._shape_at(t, self._inside(window_t))
            value = self._shaped(value, jnp.asarray(shape).astype(value.dtype))
        # Innermost first: outside an outer window, its `outside` is what counts.
        for window in self.windows:
            inside = window.contains(window_t)
            value = jnp.where(inside, value, jnp.asarray(window.outside, value.dtype))
        return value

    def on_grid(self, times: np.ndarray, window_times: np.ndarray) -> jax.Array:
        """The numbers at host times [N], windows judged in float64; [N] or [N, B]."""
        value = jnp.asarray(self.value) * 1.0
        column = (-1,) + (1,) * value.ndim
        if self.shape is None:
            values = jnp.broadcast_to(value, (len(times), *value.shape))
        else:
            places = zip(times, self._inside(window_times), strict=True)
            with jax.ensure_compile_time_eval():
                shapes = [jnp.asarray(self._shape_at(*place)) for place in places]
            shape = jnp.stack(shapes).astype(value.dtype).reshape(column)
            values = self._shaped(value[None], shape)
        # In float64, and as the plan does it: rounded to float32, a step at an edge
        # could be inside here while its branches were planned as not evaluated.
        for window in self.windows:
            inside = window.contains(window_times).reshape(column)
            outside = jnp.asarray(window.outside, values.dtype)
            values = jnp.where(inside, values, outside)
        return values

    def on_host(self, t: float) -> np.ndarray | None:
        """The number at host time `t`, or None while `value` is traced there."""
        # Outermost first, as in `at`. Outside a window the number is known even while
        # `value` is traced: this is what makes closed windows free under jit.
        for window in reversed(self.windows):
            if not window.contains(t):
                return np.asarray(window.outside)
        if isinstance(self.value, Tracer):
            return None
        # A shape written with jnp would be staged into the caller's trace otherwise.
        with jax.ensure_compile_time_eval():
            if self.shape is None:
                return np.asarray(self.value) * 1.0
            shape = self._shape_at(t, True)
            if isinstance(shape, Tracer):
                return None
            return np.asarray(self._shaped(np.asarray(self.value), np.asarray(shape)))

    def _inside(self, t: Any) -> Any:
        """Whether t lies in all windows, shaped like t."""
        inside = np.ones(np.shape(t), bool)
        for window in self.windows:
            inside = inside & window.contains(t)
        return inside

    def _shape_at(self, t: Any, inside: Any) -> Any:
        """`shape(t)`, or 1 at times outside, where it does not count.

        Raises:
            InputError: if it is not one finite number at a time known on the host.
        """
        # A function may have no value outside its window (1 / t at t = 0). Selecting
        # `outside` afterwards would not do: the gradient would be 0 times infinity.
        assert self.shape is not None
        if isinstance(inside, Tracer):
            return jnp.where(inside, _called(self.shape, t, np.ones(())), 1.0)
        if not np.any(inside):
            return 1.0
        shape = _called(self.shape, t, np.asarray(inside))
        return shape if np.all(inside) else jnp.where(inside, shape, 1.0)

    def _shaped(self, value: Any, shape: Any) -> Any:
        """The number where a shape acts; numpy stays numpy."""
        if self.around:
            number = self.around + (value - self.around) * shape
        else:
            number = value * shape
        if self.least is None:
            return number
        xp = jnp if isinstance(number, jax.Array) else np
        return xp.maximum(number, self.least)

    def neutral_at(self, t: float, neutral: float) -> bool:
        """Whether the number at host time `t` is known to be `neutral`."""
        value = self.on_host(t)
        return value is not None and bool(np.all(value == neutral))


jax.tree_util.register_dataclass(
    Schedule,
    data_fields=["value"],
    meta_fields=["shape", "windows", "around", "least"],
)


def _called(function: Callable[[Any], Any], t: Any, inside: np.ndarray) -> Any:
    """What the function of a schedule returns; judged at times known on the host."""
    at = "a traced t" if isinstance(t, Tracer) else f"t={np.asarray(t).tolist()}"
    name = f"schedule: the function of noise time, at {at}"
    try:
        shape = function(t)
    except ZeroDivisionError:
        raise InputError(f"{name}: need a finite value, got a division by 0.") from None
    if isinstance(shape, bool) or getattr(shape, "dtype", None) == "bool":  # t < 0.5
        shape = 1.0 * shape
    known = inside.all() or isinstance(shape, Tracer)
    check_value(name, "value", shape if known else np.where(inside, shape, 1.0))
    if np.shape(shape) not in ((), np.shape(t)):
        raise InputError(f"{name}: need one number, got shape {np.shape(shape)}.")
    return shape


# What a weight or scale may be given as.
Weight = ArrayLike | Callable | Schedule


def is_schedule(value: Any) -> bool:
    """Whether `value` is a `Schedule` (a leaf predicate for `jax.tree`)."""
    return isinstance(value, Schedule)


def constant(value: Weight) -> Schedule:
    """`value` as a `Schedule`: a number, an array [B] (one per sample), or f(t).

    A function takes noise time t [] and returns a number; it must be pure, and is
    called on the host for every step of a grid.

    Raises:
        InputError: if a known number is not finite; what is traced cannot be judged.
            The function, at the first time known on the host where it returns no
            finite number.
    """
    if isinstance(value, Schedule):
        return value
    if callable(value):
        return Schedule(1.0, shape=value)
    check_value("schedule", "value", value)
    # A list would be a pytree of numbers instead of one leaf.
    return Schedule(jnp.asarray(value) if isinstance(value, list | tuple) else value)


def window(
    value: Weight,
    *,
    outside: float,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Schedule:
    """`value` for noise times in `[t_lo, t_hi)`, else `outside`.

    Args:
        value: number, array [B], function of t, or another schedule (windows nest).
        outside: what holds elsewhere; 1 switches a scale off, 0 a weight.
        t_lo, t_hi: edges in noise time, 0 <= t_lo < t_hi <= 1, static. The edges are
            compared on the host in float64; `t_hi = 1` includes t = 1. Elsewhere the
            upper edge lies outside: to include a time, add 1e-5 to it. A smaller
            amount may count as rounding of the same time.

    Raises:
        InputError: if the edges are not ordered inside [0, 1] or traced, or as
            `constant`.

    >>> float(window(4.0, t_lo=0.2, t_hi=0.8, outside=1.0).at(0.8))
    1.0
    """
    schedule = constant(value)
    low, high = _edge("t_lo", t_lo), _edge("t_hi", t_hi)
    if not 0 <= low < high <= 1:
        raise InputError(
            f"window: need 0 <= t_lo < t_hi <= 1, got t_lo={t_lo!r}, t_hi={t_hi!r}. "
            "Times are noise times: 1 is noise, 0 is data; divide timesteps by 1000."
        )
    if (low, high) == (0, 1):
        return schedule
    edge = Window(low, high, static_number("window", "outside", outside))
    return dataclasses.replace(schedule, windows=(*schedule.windows, edge))


def _edge(argument: str, edge: Any) -> float:
    """A window's edge as a float."""
    if isinstance(edge, Tracer):
        raise InputError(
            f"window: need {argument} known before tracing, got {argument}={edge!r}. "
            "Scales are traced, windows are not: give a number on the host, or a scale "
            "that is a function of t."
        )
    return static_number("window", argument, edge)
