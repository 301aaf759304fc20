"""Noise paths: how data turns into noise, and every prediction into every other.

A path mixes clean data `x0` and unit Gaussian `noise` at noise time `t` in [0, 1]
(1 = noise, 0 = data):

    x_t = alpha(t) x0 + sigma(t) noise                                        (1)

A network predicts one of four `kind`s, which hold the same information at fixed
`(x, t)`. With a' = d alpha / dt and s' = d sigma / dt:

    velocity = a' x0 + s' noise              = dx / dt                        (2)
    denoised = E[x0 | x_t]                                                    (3)
    noise    = (x - alpha denoised) / sigma                                   (4)
    score    = grad log p_t(x) = -noise / sigma                               (5)

`denoised` follows from `velocity` by eliminating `noise` from (1) and (2):

    denoised = (s' x - sigma velocity) / (alpha s' - sigma a')                (6)

Each conversion is affine in the prediction, so differences of predictions at one
`(x, t)` convert by a factor alone (`difference_factor`). A conversion is undefined
where its denominator is 0: `denoised` from `noise` where alpha = 0 (t = 1 of `Linear`
and `GVP`), `noise` and `score` from `denoised` where sigma = 0 (t = 0).

All functions of time take host numbers (computed in float64) and JAX arrays alike.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide.errors import InputError

Array = jax.Array  # shapes stand in the docstrings
# Functions of time take float64 numbers on the host and JAX arrays inside a program.
ArrayLike = jax.Array | np.ndarray | float

KINDS = ("velocity", "denoised", "noise", "score")
SCHEDULES = ("linear", "scaled_linear")
# Of alpha or sigma, below which nothing is left: alpha of GVP at t = 1 is 6e-17.
NOTHING = 1e-8
MAX_TIMESTEPS = 1_000_000  # of a table; above is a slip of the hand


class Node(NamedTuple):
    """One noise time with the path's coefficients there; each [] or [B].

    Float64 numbers on the host, JAX arrays inside a program.
    """

    t: Any
    alpha: Any
    sigma: Any
    dalpha: Any  # d alpha / dt
    dsigma: Any  # d sigma / dt


class Path(Protocol):
    """alpha(t), sigma(t) and their derivatives; hashable, so static under jit."""

    def node(self, t: ArrayLike) -> Node:
        """Coefficients at noise time `t` [] or [B]; float64 on the host."""
        ...

    def time(self, ratio: ArrayLike) -> Any:
        """The noise time where sigma / alpha equals `ratio` (inverse of the path)."""
        ...


def numerics(t: ArrayLike) -> Any:
    """`jax.numpy` for JAX arrays and tracers, `numpy` (float64) for host numbers."""
    return jnp if isinstance(t, jax.Array) else np


@dataclasses.dataclass(frozen=True)
class Linear:
    """Rectified flow (SiT, SD3, FLUX): alpha = 1 - t, sigma = t."""

    def node(self, t: ArrayLike) -> Node:
        xp = numerics(t)
        t = xp.asarray(t) * 1.0
        one = xp.ones_like(t)
        return Node(t, one - t, t, -one, one)

    def time(self, ratio: ArrayLike) -> Any:
        return ratio / (1.0 + ratio)


@dataclasses.dataclass(frozen=True)
class GVP:
    """Trigonometric, variance preserving (SiT): alpha = cos(pi t/2), sigma = sin."""

    def node(self, t: ArrayLike) -> Node:
        xp = numerics(t)
        t = xp.asarray(t) * 1.0
        half = math.pi / 2
        sin, cos = xp.sin(half * t), xp.cos(half * t)
        return Node(t, cos, sin, -half * sin, half * cos)

    def time(self, ratio: ArrayLike) -> Any:
        return 2 / math.pi * numerics(ratio).arctan(ratio)


@dataclasses.dataclass(frozen=True)
class VP:
    """Continuous variance-preserving diffusion (Song et al. 2021, arXiv:2011.13456).

    log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2, sigma^2 = 1 - alpha^2.
    `beta_min`, `beta_max`: rates of the forward process per unit time.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise InputError(
                "VP: need 0 < beta_min <= beta_max, both finite, got "
                f"beta_min={self.beta_min!r}, beta_max={self.beta_max!r}. "
                "0.1 and 20 are published."
            )

    def node(self, t: ArrayLike) -> Node:
        xp = numerics(t)
        t = xp.asarray(t) * 1.0
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * (
            self.beta_min / 2
        )
        slope = -t * (self.beta_max - self.beta_min) / 2 - self.beta_min / 2
        return _variance_preserving(xp, t, log_alpha, slope)

    def time(self, ratio: ArrayLike) -> Any:
        xp = numerics(ratio)
        log_alpha = -0.5 * xp.log1p(xp.asarray(ratio) ** 2)
        a, b = (self.beta_max - self.beta_min) / 4, self.beta_min / 2
        # a t^2 + b t + log_alpha = 0, in the form that stays exact when a = 0.
        return -2 * log_alpha / (b + xp.sqrt(b * b - 4 * a * log_alpha))


@dataclasses.dataclass(frozen=True)
class DDPM:
    """A discrete table of betas, as DDPM and DiT have it, read at continuous time.

    `schedule` says what is equally spaced from `beta_start` to `beta_end`: beta
    ("linear") or its root ("scaled_linear", see the function of that name).
    Timestep i in 0..num_timesteps-1 of the table sits at t = (i + 1) / num_timesteps,
    so that t = 0 is clean data; log alpha is interpolated linearly in between.
    Exact at the knots, which are all that `respaced` grids visit.
    """

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    schedule: str = "linear"

    def __post_init__(self):
        steps = self.num_timesteps
        if not is_integer(steps) or not 1 <= steps <= MAX_TIMESTEPS:
            raise InputError(
                f"DDPM: need an integer num_timesteps from 1 to {MAX_TIMESTEPS}, got "
                f"num_timesteps={steps!r}. Published tables have 1000."
            )
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(
                "DDPM: need 0 < beta_start <= beta_end < 1, got "
                f"beta_start={self.beta_start!r}, beta_end={self.beta_end!r}. "
                "1e-4 and 0.02 are published."
            )
        if self.schedule not in SCHEDULES:
            raise InputError(
                f"DDPM: need schedule in {SCHEDULES}, got schedule={self.schedule!r}."
            )

    def node(self, t: ArrayLike) -> Node:
        xp = numerics(t)
        now: Any = xp.asarray(t) * 1.0
        times, log_alphas = _ddpm_table(self)
        index = xp.clip(
            xp.ceil(now * self.num_timesteps - 1e-4).astype(int) - 1,
            0,
            self.num_timesteps - 1,
        )
        log_alphas, times = xp.asarray(log_alphas), xp.asarray(times)
        low, high = log_alphas[index], log_alphas[index + 1]
        slope = ((high - low) * self.num_timesteps).astype(now.dtype)
        log_alpha = high.astype(now.dtype) + slope * (
            now - times[index + 1].astype(now.dtype)
        )
        # Rounding must leave no noise at t = 0, nor the root of a negative number.
        log_alpha = xp.where(now > 0, xp.minimum(log_alpha, 0.0), 0.0)
        return _variance_preserving(xp, now, log_alpha, slope)

    def time(self, ratio: ArrayLike) -> Any:
        xp = numerics(ratio)
        times, log_alphas = _ddpm_table(self)
        log_alpha = -0.5 * xp.log1p(xp.asarray(ratio) ** 2)
        return xp.interp(-log_alpha, xp.asarray(-log_alphas), xp.asarray(times))


def scaled_linear(
    num_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> DDPM:
    """The table of latent diffusion: equal steps in sqrt(beta).

        beta_i = (sqrt(beta_start) + i / (T - 1) (sqrt(beta_end) - sqrt(beta_start)))^2

    Stable Diffusion 1.x and 2.x, SDXL; CogVideoX shifts and rescales this table.

    Raises:
        InputError: as `DDPM`.

    Source: Rombach et al. 2022, arXiv:2112.10752; diffusers' "scaled_linear".
    """
    return DDPM(num_timesteps, beta_start, beta_end, "scaled_linear")


@dataclasses.dataclass(frozen=True)
class EDM:
    """Variance exploding (Karras et al. 2022): alpha = 1, sigma = sigma_max t.

    Noise time is the noise level in units of `sigma_max`: steps in t are steps in
    sigma. The state has standard deviation up to `sigma_max`.
    """

    sigma_max: float = 80.0

    def __post_init__(self):
        if not 0 < self.sigma_max < math.inf:
            raise InputError(
                "EDM: need a finite sigma_max > 0, got "
                f"sigma_max={self.sigma_max!r}. 80 is published."
            )

    def node(self, t: ArrayLike) -> Node:
        xp = numerics(t)
        t = xp.asarray(t) * 1.0
        one = xp.ones_like(t)
        return Node(t, one, self.sigma_max * t, 0.0 * one, self.sigma_max * one)

    def time(self, ratio: ArrayLike) -> Any:
        return ratio / self.sigma_max


def _variance_preserving(xp: Any, t: Any, log_alpha: Any, slope: Any) -> Node:
    """Node of a path with sigma^2 = 1 - alpha^2, from log alpha and its slope."""
    alpha = xp.exp(log_alpha)
    sigma = xp.sqrt(-xp.expm1(2 * log_alpha))
    dalpha = alpha * slope
    # sigma' = -alpha alpha' / sigma, infinite at sigma = 0; floored, never NaN.
    dsigma = -alpha * dalpha / xp.maximum(sigma, xp.finfo(alpha.dtype).tiny)
    return Node(t, alpha, sigma, dalpha, dsigma)


@functools.lru_cache
def _ddpm_table(path: DDPM) -> tuple[np.ndarray, np.ndarray]:
    """Knots (t, log alpha), float64, [num_timesteps + 1]."""
    power = 1 if path.schedule == "linear" else 2
    ends = path.beta_start ** (1 / power), path.beta_end ** (1 / power)
    betas = np.linspace(*ends, path.num_timesteps) ** power
    log_alphas = np.concatenate([[0.0], np.cumsum(0.5 * np.log1p(-betas))])
    return np.arange(path.num_timesteps + 1) / path.num_timesteps, log_alphas


def expand(value: ArrayLike, x: Array) -> Array:
    """`value` [] or [B] in the dtype of `x` [B, *D], shaped to broadcast against it."""
    value = jnp.asarray(value).astype(x.dtype)
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def widen(value: Array) -> Array:
    """`value` in float32 if its own dtype is narrower."""
    narrow = jnp.finfo(value.dtype).bits < 32
    return value.astype(jnp.float32) if narrow else value


def corrupt(x0: Array, noise: Array, node: Node) -> Array:
    """The noisy state `x_t` [B, *D] of Eq. (1)."""
    return expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise


def target(kind: str, x0: Array, noise: Array, node: Node) -> Array:
    """What a network of this `kind` regresses on, [B, *D]; Eqs. (2) to (5)."""
    check_kind("target", kind)
    if kind == "velocity":
        return expand(node.dalpha, x0) * x0 + expand(node.dsigma, x0) * noise
    if kind == "denoised":
        return x0
    return noise if kind == "noise" else -noise / expand(node.sigma, x0)


def to_pair(kind: str, prediction: Array, x: Array, node: Node) -> tuple[Array, Array]:
    """(denoised, noise), both [B, *D], of a prediction made at `(x, node)`."""
    check_kind("to_pair", kind)
    alpha, sigma, dalpha, dsigma = (expand(c, x) for c in node[1:])
    prediction = prediction.astype(x.dtype)
    if kind == "velocity":
        wronskian = alpha * dsigma - sigma * dalpha
        denoised = (dsigma * x - sigma * prediction) / wronskian
        return denoised, (alpha * prediction - dalpha * x) / wronskian
    if kind == "denoised":
        return prediction, (x - alpha * prediction) / sigma
    noise = prediction if kind == "noise" else -sigma * prediction
    return (x - sigma * noise) / alpha, noise


def from_pair(kind: str, denoised: Array, noise: Array, node: Node) -> Array:
    """The prediction of this `kind` that holds the pair (denoised, noise)."""
    return target(kind, denoised, noise, node)


def convert(prediction: Array, x: Array, node: Node, source: str, to: str) -> Array:
    """A `source` prediction at `(x, node)` as kind `to`; [B, *D], dtype kept."""
    check_kind("convert", to)
    if source == to:
        return prediction
    converted = from_pair(to, *to_pair(source, prediction, x, node), node)
    return converted.astype(prediction.dtype)


def undetermined(kind: str, node: Node) -> tuple[Any, Any]:
    """Where a prediction of `kind` gives no data, and where it gives no noise.

    The denominators of Eqs. (4) and (6) are 0 or infinite there in float32. A velocity
    gives no noise where sigma' is infinite: at t = 0 of `VP` and `DDPM`.

    Args:
        kind: one of `KINDS`.
        node: of noise times [N], float64 on the host.

    Returns:
        Two bool arrays [N].
    """
    no_data, no_noise = np.abs(node.alpha) < NOTHING, np.abs(node.sigma) < NOTHING
    never = np.zeros_like(no_data)
    if kind == "velocity":
        with np.errstate(all="ignore"):
            size = np.abs(node.alpha * node.dsigma - node.sigma * node.dalpha)
        single = np.finfo(np.float32)
        return size < single.tiny, ~(size <= single.max)
    return (never, no_noise) if kind == "denoised" else (no_data, never)


def difference_factor(node: Node, source: str, to: str) -> Any:
    """The number that turns a difference of `source` predictions into one of `to`.

    Holds for two predictions at the same `(x, t)`, where the parts in `x` cancel.
    """
    return _per_velocity(node, to) / _per_velocity(node, source)


def _per_velocity(node: Node, kind: str) -> Any:
    """d prediction / d velocity at fixed `(x, t)`, [] or [B]."""
    check_kind("difference_factor", kind)
    wronskian = node.alpha * node.dsigma - node.sigma * node.dalpha
    if kind == "velocity":
        return wronskian / wronskian
    if kind == "denoised":
        return -node.sigma / wronskian
    noise = node.alpha / wronskian
    return noise if kind == "noise" else -noise / node.sigma


def is_integer(value: Any) -> bool:
    """Whether `value` is a whole number as a type; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_number(value: Any) -> float:
    """`value` as a float; NaN, which is in no range, where it is no single number."""
    try:
        return np.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def check_path(name: str, path: Any) -> None:
    """Raises InputError unless `path` is a noise path."""
    if isinstance(path, type) or not callable(getattr(path, "node", None)):
        raise InputError(
            f"{name}: need a noise path such as paths.Linear(), got path={path!r}. "
            f"By name: paths.PATHS[...]() of {sorted(PATHS)}."
        )


def check_kind(name: str, kind: str) -> None:
    """Raises InputError unless `kind` is one of `KINDS`."""
    if kind not in KINDS:
        raise InputError(f"{name}: need kind in {KINDS}, got kind={kind!r}.")


# By name, for configs and weight files.
PATHS: dict[str, Callable[..., Path]] = {
    "linear": Linear,
    "gvp": GVP,
    "vp": VP,
    "ddpm": DDPM,
    "scaled_linear": scaled_linear,
    "edm": EDM,
}


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
