"""Scales that change over sampling: a number times a curve in noise time.

Every function here makes a `Schedule` for any transform: `cfg(cosine(4.0))`. Curves
are in sampling progress `p = 1 - t`, 0 at noise and 1 at data. A curve of your own is
any pure function of noise time, called on the host: `cfg(lambda t: 1 + 3 * (1 - t))`.

All but `beta` and `clamp` are schedulers of Wang et al. 2024, Analysis of
Classifier-Free Guidance Weight Schedulers, arXiv:2404.13040; names, curves and
constants are known at second hand only. Nor is it known whether a curve multiplies the
scale or what exceeds 1, so `of` offers both.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxguide.errors import InputError
from jaxguide.guidance._checks import check_value, static_number
from jaxguide.guidance._schedule import Schedule, Weight, constant
from jaxguide.paths import Array, numerics

# What a curve multiplies: the scale itself, or its distance from 1.
PARTS = ("scale", "excess")


@dataclasses.dataclass(frozen=True)
class Curve:
    """A function of sampling progress as one of noise time; hashable, so static."""

    function: Callable[..., Any]
    numbers: tuple[float, ...] = ()

    def __call__(self, t: Array) -> Array:
        xp = numerics(t)
        return self.function(xp, 1 - xp.asarray(t) * 1.0, *self.numbers)


def linear(value: float | Array, *, of: str = "scale") -> Schedule:
    """Rises from 0 to twice the value.

        value * 2 p                 p = 1 - t

    Mean over noise time: `value`. A scale of 0 is the unconditional prediction.

    Args:
        value: dimensionless; number or array [B], traced.
        of: "scale": the curve c multiplies the value; "excess": 1 + (value - 1) c.

    Returns:
        A `Schedule`.

    Raises:
        InputError: if `of` is unknown.

    >>> tuple(float(linear(4.0).at(t)) for t in (1.0, 0.5, 0.0))
    (0.0, 4.0, 8.0)
    """
    return _make("linear", value, of, Curve(_linear))


def inverse_linear(value: float | Array, *, of: str = "scale") -> Schedule:
    """Falls from twice the value to 0: `value * 2 (1 - p)`; see `linear`."""
    return _make("inverse_linear", value, of, Curve(_inverse_linear))


def cosine(value: float | Array, *, of: str = "scale") -> Schedule:
    """Rises smoothly from 0 to twice the value: `value * (1 - cos(pi p))`.

    Mean `value`; arguments as in `linear`.
    """
    return _make("cosine", value, of, Curve(_cosine))


def sine_curve(value: float | Array, *, of: str = "scale") -> Schedule:
    """Falls smoothly from twice the value to 0: `value * (1 - sin(pi (p - 1/2)))`.

    Mean `value`; arguments as in `linear`. The falling twin of `cosine`; recalled, and
    not checked against the paper.
    """
    return _make("sine_curve", value, of, Curve(_sine))


def up_down(value: float | Array, *, of: str = "scale") -> Schedule:
    """The paper's Lambda shape: 0 at both ends, `value * 2 (1 - |2 p - 1|)`.

    Mean `value`; arguments as in `linear`.
    """
    return _make("up_down", value, of, Curve(_up_down))


def down_up(value: float | Array, *, of: str = "scale") -> Schedule:
    """The paper's V shape: 0 in the middle, `value * 2 |2 p - 1|`.

    Mean `value`; arguments as in `linear`.
    """
    return _make("down_up", value, of, Curve(_down_up))


def powered_cosine(
    value: float | Array, power: float = 4.0, *, of: str = "scale"
) -> Schedule:
    """Rises late and smoothly to the value: `value * (1 - cos(pi p^power)) / 2`.

    Not normalised: its mean is below `value`, which is its maximum. Other arguments as
    in `linear`.

    Raises:
        InputError: if `power` is not positive.
    """
    power = static_number("powered_cosine", "power", power, above=0)
    return _make("powered_cosine", value, of, Curve(_powered_cosine, (power,)))


def clamp(value: Weight, least: float) -> Schedule:
    """A schedule that never falls below `least`: `max(least, value(t))`.

        clamp(linear(4.0), 2.0)

    Args:
        value: number, array [B], function of noise time, or `Schedule`; what holds
            outside its windows is left alone.
        least: dimensionless, static; the paper's best were 2 for SD 1.5 and 4 for SDXL,
            known at second hand only.

    Returns:
        A `Schedule`.

    Raises:
        InputError: if `least` is not a finite number.

    >>> tuple(float(clamp(linear(4.0), 2.0).at(t)) for t in (1.0, 0.5, 0.0))
    (2.0, 4.0, 8.0)
    """
    least = static_number("clamp", "least", least)
    schedule = constant(value)
    shape = Curve(_flat) if schedule.shape is None else schedule.shape
    return dataclasses.replace(schedule, shape=shape, least=least)


def beta(
    value: float | Array,
    a: float = 2.0,
    b: float = 2.0,
    *,
    t_last: float = 0.0,
    of: str = "scale",
) -> Schedule:
    """The density of the Beta distribution over sampling, of mean `value`.

        value * p^(a-1) (1-p)^(b-1) / B(a, b)           p = (1 - t) / (1 - t_last)

    For a, b > 1 it is exactly 0 at t = 1 and at `t_last`.

    Args:
        value: dimensionless; number or array [B], traced.
        a, b: shape of the density, at least 1; 1 and 1 is constant.
        t_last: noise time at which sampling counts as done, in [0, 1): the start of a
            grid's last step makes that step 0.
        of: as in `linear`.

    Returns:
        A `Schedule`.

    Raises:
        InputError: if `a`, `b` or `t_last` is out of range.

    Source: Malarz et al. 2025, beta-CFG, arXiv:2502.10574; read against
        gmum/beta-CFG, whose p = i / (N - 1) is this one on uniform steps with
        `t_last = 1 / N`.
    """
    a, b = static_number("beta", "a", a), static_number("beta", "b", b)
    if not (a >= 1 and b >= 1):
        raise InputError(f"beta: need a >= 1 and b >= 1, got a={a!r}, b={b!r}.")
    t_last = static_number("beta", "t_last", t_last)
    if not 0 <= t_last < 1:
        raise InputError(f"beta: need 0 <= t_last < 1, got t_last={t_last!r}.")
    numbers = (a, b, t_last)
    return _make("beta", value, of, Curve(_beta, numbers))


def _make(name: str, value: Any, of: str, shape: Curve) -> Schedule:
    if of not in PARTS:
        raise InputError(f"{name}: need of in {PARTS}, got of={of!r}.")
    if callable(value) or isinstance(value, Schedule | str) or value is None:
        raise InputError(f"{name}: need a number or an array for value, got {value!r}.")
    check_value(name, "value", value)
    return Schedule(value, shape=shape, around=1.0 if of == "excess" else 0.0)


def _flat(xp: Any, p: Array) -> Array:
    return xp.ones_like(p)


def _linear(xp: Any, p: Array) -> Array:
    del xp
    return 2 * p


def _inverse_linear(xp: Any, p: Array) -> Array:
    del xp
    return 2 * (1 - p)


def _cosine(xp: Any, p: Array) -> Array:
    return 1 - xp.cos(math.pi * p)


def _sine(xp: Any, p: Array) -> Array:
    return 1 - xp.sin(math.pi * (p - 0.5))


def _up_down(xp: Any, p: Array) -> Array:
    return 2 * (1 - xp.abs(2 * p - 1))


def _down_up(xp: Any, p: Array) -> Array:
    return 2 * xp.abs(2 * p - 1)


def _powered_cosine(xp: Any, p: Array, power: float) -> Array:
    return (1 - xp.cos(math.pi * p**power)) / 2


def _beta(xp: Any, p: Array, a: float, b: float, t_last: float) -> Array:
    p = xp.clip(p / (1 - t_last), 0.0, 1.0)
    log_norm = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return p ** (a - 1) * (1 - p) ** (b - 1) * math.exp(-log_norm)


# By name, for configs.
CURVES: dict[str, Callable[..., Schedule]] = {
    "beta": beta,
    "clamp": clamp,
    "cosine": cosine,
    "down_up": down_up,
    "inverse_linear": inverse_linear,
    "linear": linear,
    "powered_cosine": powered_cosine,
    "sine_curve": sine_curve,
    "up_down": up_down,
}
