"""Samplers of one evaluation per step and no history.

All have the form `x_next = a denoised + b noise + c fresh`; they differ in how a, b
and c follow from the path. With a consistent pair, `x = alpha denoised + sigma noise`.
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Pair
from jaxguide.paths import Array, Path, expand
from jaxguide.samplers._base import Sampler


class SingleTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    denoised: np.ndarray
    noise: np.ndarray
    fresh: np.ndarray
    # Range of the learned variance, as logarithms of standard deviations.
    log_small: np.ndarray
    log_large: np.ndarray


class SingleRule(Protocol):
    """How the coefficients follow from the path. Hashable."""

    @property
    def stochastic(self) -> bool:
        """Whether any `fresh` coefficient can be non-zero."""
        ...

    @property
    def learned(self) -> bool:
        """Whether the network gives the standard deviation of fresh noise."""
        ...

    def terms(self, path: Path, grid: np.ndarray) -> SingleTerms:
        """Coefficients for `grid` [N + 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class SingleStep(Sampler):
    """A sampler of one evaluation per step; see `euler`, `ddim`, `ddpm`, ..."""

    rule: SingleRule

    @property
    def stochastic(self) -> bool:
        return self.rule.stochastic

    def coefficients(self, path: Path, grid: np.ndarray) -> SingleTerms:
        with np.errstate(all="ignore"):
            return self.rule.terms(path, grid)

    def step(
        self, x: Array, memory: Any, pair: Pair, c: SingleTerms, fresh: Array | None
    ) -> tuple[Array, Any]:
        del x
        denoised, noise = pair.denoised, pair.noise
        moved = expand(c.denoised, denoised) * denoised + expand(c.noise, noise) * noise
        if fresh is not None:
            moved = moved + self._spread(pair, c, fresh)
        return moved, memory

    def _spread(self, pair: Pair, c: SingleTerms, fresh: Array) -> Array:
        """The fresh noise of this step, with the learned standard deviation if any."""
        std = expand(c.fresh, fresh)
        if not self.rule.learned:
            return std * fresh
        if pair.extra is None:
            raise InputError(
                "ddpm: need a network with learned variance for variance='learned', "
                "got predictions without one. Use variance='small' or 'large'."
            )
        share = ((pair.extra + 1) / 2).astype(fresh.dtype)
        low, high = expand(c.log_small, fresh), expand(c.log_large, fresh)
        # The standard deviation is 0 exactly in the last step, which adds no noise.
        return jnp.where(std > 0, jnp.exp(share * high + (1 - share) * low), 0) * fresh


def _plain(denoised: np.ndarray, noise: np.ndarray, fresh: Any = 0.0) -> SingleTerms:
    zeros = np.zeros_like(denoised)
    return SingleTerms(denoised, noise, zeros + fresh, zeros, zeros)


@dataclasses.dataclass(frozen=True)
class EulerRule:
    """x + dt velocity, written with alpha + dt alpha' and sigma + dt sigma'."""

    stochastic: bool = False
    learned: bool = False

    def terms(self, path: Path, grid: np.ndarray) -> SingleTerms:
        node, dt = path.node(grid[:-1]), np.diff(grid)
        return _plain(node.alpha + dt * node.dalpha, node.sigma + dt * node.dsigma)


@dataclasses.dataclass(frozen=True)
class AncestralRule:
    """DDIM with eta, and DDPM; exact in the path's coefficients."""

    eta: float
    variance: str

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def learned(self) -> bool:
        return self.variance == "learned"

    def terms(self, path: Path, grid: np.ndarray) -> SingleTerms:
        now, then = path.node(grid[:-1]), path.node(grid[1:])
        # Variance of x_t given x_s, and of x_s given x_t and x0.
        step = now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2
        small = step * (then.sigma / now.sigma) ** 2
        kept = np.sqrt(np.maximum(then.sigma**2 - self.eta**2 * small, 0.0))
        kept = kept if self.eta else then.sigma  # also where `small` is infinite
        std_small, std_large = np.sqrt(np.maximum(small, 0.0)), np.sqrt(step)
        last = then.sigma == 0
        std = self.eta * (std_small if self.variance == "small" else std_large)
        return SingleTerms(
            then.alpha,
            kept,
            np.where(last, 0.0, std),
            np.log(np.where(last, 1.0, std_small)),
            np.log(np.where(last, 1.0, std_large)),
        )


FORMS = ("sigma", "sbdm", "constant", "linear", "decreasing", "increasing-decreasing")
LAST_STEPS = ("mean", "tweedie", "euler")


@dataclasses.dataclass(frozen=True)
class MaruyamaRule:
    """Euler-Maruyama of dx = (velocity - w score) dt + sqrt(2 w) dW, t falling."""

    form: str
    scale: float
    last: str
    stochastic: bool = True
    learned: bool = False

    def terms(self, path: Path, grid: np.ndarray) -> SingleTerms:
        node, dt = path.node(grid[:-1]), np.diff(grid)
        w = self._diffusion(node, grid)
        score = w / node.sigma  # -w score = (w / sigma) noise
        denoised = node.alpha + dt * node.dalpha
        noise = node.sigma + dt * (node.dsigma + score)
        fresh = np.sqrt(2 * w * -dt)
        fresh[-1] = 0.0
        if self.last == "tweedie":
            denoised[-1], noise[-1] = 1.0, 0.0
        if self.last == "euler":
            noise[-1] = (node.sigma + dt * node.dsigma)[-1]
        # Not isfinite: alpha of GVP at t = 1 is 6e-17 in float64, and w then 1e16.
        if not np.all(np.abs(noise) < 1e8):
            raise InputError(
                f"euler_maruyama: need a finite diffusion on the grid, got "
                f"form={self.form!r} at t={float(grid[0])!r}. Start the grid below 1 "
                "or use form='sigma'."
            )
        return _plain(denoised, noise, fresh)

    def _diffusion(self, node: Any, grid: np.ndarray) -> np.ndarray:
        """w at the start of each step."""
        t = grid[:-1]
        forms = {
            "sigma": lambda: node.sigma,
            "sbdm": lambda: (
                node.sigma * node.dsigma - node.dalpha / node.alpha * node.sigma**2
            ),
            "constant": lambda: np.ones_like(t),
            "linear": lambda: t,
            "decreasing": lambda: 0.25 * (np.cos(math.pi * (1 - t)) + 1) ** 2,
            "increasing-decreasing": lambda: np.sin(math.pi * t) ** 2,
        }
        return self.scale * forms[self.form]()


def euler() -> SingleStep:
    """Euler's method on the probability-flow ODE; order 1.

        x_next = x + (t_next - t) velocity

    NFE: 1 per step.
    Source: Liu et al. 2022, arXiv:2209.03003; SiT's `Euler`.
    Differs from the source: written in (denoised, noise), so that transforms that
        couple to the sampler renoise with their own noise; otherwise the same numbers.
    """
    return SingleStep(EulerRule())


def ddim(eta: float = 0.0) -> SingleStep:
    """DDIM: exact in the path's coefficients, `eta` times the ancestral noise; order 1.

        x_next = alpha_s denoised + sqrt(sigma_s^2 - v^2) noise + v fresh

    Args:
        eta: 0 deterministic to 1 ancestral.

    Raises:
        InputError: if `eta` is outside [0, 1].

    NFE: 1 per step.
    Source: Song et al. 2020, arXiv:2010.02502, Eqs. 12 and 16, for any path.
    Differs from the source: nothing known.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"ddim: need 0 <= eta <= 1, got eta={eta!r}.")
    return SingleStep(AncestralRule(float(eta), "small"))


def ddpm(variance: str = "small") -> SingleStep:
    """DDPM's ancestral sampling, on any grid (DiT: `respaced`).

    Args:
        variance: "small" (of the posterior), "large" (of the forward step), or
            "learned" (DiT: interpolated in the logarithm by the network's second
            output in [-1, 1], taken from the conditional call).

    Raises:
        InputError: if `variance` is unknown; at the first trace if a network has no
            learned variance.

    NFE: 1 per step. Stochastic.
    Source: Ho et al. 2020, arXiv:2006.11239, Eqs. 6 and 7; Nichol and Dhariwal 2021,
        arXiv:2102.09672, Eq. 15; DiT's respaced `p_sample`.
    Differs from the source: the mean does not clip denoised (as DiT).
    """
    names = ("small", "large", "learned")
    if variance not in names:
        raise InputError(f"ddpm: need variance in {names}, got variance={variance!r}.")
    return SingleStep(AncestralRule(1.0, variance))


def euler_maruyama(
    form: str = "sigma", *, scale: float = 1.0, last: str = "mean"
) -> SingleStep:
    """Euler-Maruyama on the reverse SDE, with SiT's diffusion forms and last steps.

        x_next = x + dt (velocity - w(t) score) + sqrt(2 w(t) |dt|) fresh

    Use it with `uniform(num_steps, last_step=0.04)` as SiT, REPA and MG do.

    Args:
        form: w(t), one of `FORMS`: sigma(t) (SiT's command line), "sbdm" (its API;
            infinite at t = 1), 1, t, (cos(pi (1 - t)) + 1)^2 / 4, sin^2(pi t).
        scale: multiplies w.
        last: the last step adds no noise; "mean" keeps the drift, "tweedie" returns
            denoised, "euler" follows the velocity alone.

    Raises:
        InputError: for unknown names, or where w is infinite on the grid.

    NFE: 1 per step. Stochastic.
    Source: Ma et al. 2024, SiT, arXiv:2401.08740, Eq. 4, read against willisma/SiT
        @947f95b, transport/; its code uses sqrt(2 w) where the paper has sqrt(w).
    Differs from the source: one network call per step where the code makes two.
    """
    if form not in FORMS:
        raise InputError(f"euler_maruyama: need form in {FORMS}, got form={form!r}.")
    if last not in LAST_STEPS:
        raise InputError(
            f"euler_maruyama: need last in {LAST_STEPS}, got last={last!r}."
        )
    if not scale > 0:
        raise InputError(f"euler_maruyama: need scale > 0, got scale={scale!r}.")
    return SingleStep(MaruyamaRule(form, float(scale), last))
