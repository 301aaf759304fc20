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
from jaxguide.paths import Array, Node, Path, as_number, expand
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_finite


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
            terms = self.rule.terms(path, grid)
        return check_finite(self, terms, path, grid)

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
        if not np.all(np.abs(node.dsigma) < 1e30):  # floored, so never infinite here
            t = float(grid[np.argmax(np.abs(node.dsigma))])
            raise InputError(
                "euler: need a finite time derivative on the grid, which "
                f"{path!r} does not have at the start of a step, got t={t!r}. Use "
                "ddim(), or a grid that ends above 0."
            )
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
        if not self.eta:  # also backwards, where a step has no variance
            return _plain(then.alpha, then.sigma)
        # Variance of x_t given x_s, and of x_s given x_t and x0.
        step = now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2
        small = step * (then.sigma / now.sigma) ** 2
        kept = np.sqrt(np.maximum(then.sigma**2 - self.eta**2 * small, 0.0))
        std_small, std_large = np.sqrt(np.maximum(small, 0.0)), np.sqrt(step)
        last = then.sigma == 0
        std = self.eta * (std_small if self.variance == "small" else std_large)
        std = np.where(last, 0.0, std)
        if not self.learned:
            return _plain(then.alpha, kept, std)
        return SingleTerms(
            then.alpha,
            kept,
            std,
            np.log(np.where(last, 1.0, std_small)),
            np.log(np.where(last, 1.0, std_large)),
        )


FORMS = (
    "sigma",
    "sbdm",
    "constant",
    "linear",
    "decreasing",
    "decreasing-inside",
    "increasing-decreasing",
)
LAST_STEPS = ("mean", "tweedie", "euler", "noisy")


def diffusion(form: str, scale: float, node: Node) -> np.ndarray:
    """w of SiT's SDE at noise times, host float64 [N]; times are 1 - SiT's."""
    t = node.t
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
    if form == "decreasing-inside":  # SiT's code has the norm inside the square
        return 0.25 * (scale * np.cos(math.pi * (1 - t)) + 1) ** 2
    return scale * forms[form]()


def check_diffusion(name: str, form: str, scale: float, last: str) -> None:
    """Raises InputError for unknown names, or a scale that is no diffusion."""
    if form not in FORMS:
        raise InputError(f"{name}: need form in {FORMS}, got form={form!r}.")
    if last not in LAST_STEPS:
        raise InputError(f"{name}: need last in {LAST_STEPS}, got last={last!r}.")
    if not 0 < as_number(scale) < np.inf:
        raise InputError(
            f"{name}: need a finite scale > 0, got scale={scale!r}. 1 is published; "
            "without diffusion it is euler()."
        )


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
        w = diffusion(self.form, self.scale, node)
        score = w / node.sigma  # -w score = (w / sigma) noise
        denoised = node.alpha + dt * node.dalpha
        noise = node.sigma + dt * (node.dsigma + score)
        fresh = np.sqrt(2 * w * -dt)
        fresh[-1] = fresh[-1] if self.last == "noisy" else 0.0
        if self.last == "tweedie":
            denoised[-1], noise[-1] = 1.0, 0.0
        if self.last == "euler":
            noise[-1] = (node.sigma + dt * node.dsigma)[-1]
        # Not isfinite: alpha of GVP at t = 1 is 6e-17 in float64, and w then 1e16.
        fine = np.abs(noise) < 1e8
        if not np.all(fine):
            raise InputError(
                f"euler_maruyama: need a finite diffusion on the grid, got "
                f"form={self.form!r} at t={float(grid[np.argmin(fine)])!r}. Keep the "
                "grid inside (0, 1) or use form='sigma'."
            )
        return _plain(denoised, noise, fresh)


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
    if not 0 <= as_number(eta) <= 1:
        raise InputError(f"ddim: need 0 <= eta <= 1, got eta={eta!r}. 0 draws nothing.")
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
            infinite at t = 1), 1, t, (cos(pi (1 - t)) + 1)^2 / 4, the same with `scale`
            before the cosine ("decreasing-inside", as SiT's code has its norm), and
            sin^2(pi t).
        scale: multiplies w, but for "decreasing-inside". SiT's `diffusion_norm`.
        last: "mean", "tweedie" and "euler" add no noise in the last step: it keeps the
            drift, returns denoised, or follows the velocity alone. "noisy" takes it
            like every other, with noise (SiT's `last_step=None` on `uniform(N - 1)`).

    Raises:
        InputError: for unknown names, a scale that is not positive and finite, or where
            w is infinite on the grid.

    NFE: 1 per step. Stochastic.
    Source: Ma et al. 2024, SiT, arXiv:2401.08740, Eq. 4, read against willisma/SiT
        @947f95b, transport/; its code uses sqrt(2 w) where the paper has sqrt(w).
    Differs from the source: one network call per step where the code makes two.
    """
    check_diffusion("euler_maruyama", form, scale, last)
    return SingleStep(MaruyamaRule(form, float(scale), last))
