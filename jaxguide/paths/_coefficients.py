"""alpha(t), sigma(t) and their slopes on every path."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths._checks import is_integer

# Functions of time take float64 numbers on the host and JAX arrays inside a program.
ArrayLike = jax.Array | np.ndarray | float

SCHEDULES = ("linear", "scaled_linear")
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


# By name, for configs and weight files.
PATHS: dict[str, Callable[..., Path]] = {
    "linear": Linear,
    "gvp": GVP,
    "vp": VP,
    "ddpm": DDPM,
    "scaled_linear": scaled_linear,
    "edm": EDM,
}


def check_path(name: str, path: Any) -> None:
    """Raises InputError unless `path` is a noise path."""
    if isinstance(path, type) or not callable(getattr(path, "node", None)):
        raise InputError(
            f"{name}: need a noise path such as paths.Linear(), got path={path!r}. "
            f"By name: paths.PATHS[...]() of {sorted(PATHS)}."
        )
