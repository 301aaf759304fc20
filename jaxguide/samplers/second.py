"""Second-order samplers: Heun (two evaluations per step), DPM-Solver++(2M) (one)."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxguide.guidance.evaluate import Pair
from jaxguide.paths import Array, Node, Path, expand


class HeunTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    dt: np.ndarray
    start: Node
    stop: Node


def _velocity(pair: Pair, node: Node) -> Array:
    x = pair.denoised
    return expand(node.dalpha, x) * pair.denoised + expand(node.dsigma, x) * pair.noise


@dataclasses.dataclass(frozen=True)
class Heun:
    """See `heun`."""

    stochastic: bool = False

    def stages(self, grid: np.ndarray) -> np.ndarray:
        stages = np.full(len(grid) - 1, 2)
        if grid[-1] == 0:
            stages[-1] = 1
        return stages

    def coefficients(self, path: Path, grid: np.ndarray) -> HeunTerms:
        with np.errstate(all="ignore"):
            return HeunTerms(np.diff(grid), path.node(grid[:-1]), path.node(grid[1:]))

    def init(self, x: Array) -> tuple[()]:
        del x
        return ()

    def step(
        self, x: Array, memory: Any, pair: Pair, c: HeunTerms, fresh: Array | None
    ) -> tuple[Array, Any]:
        del fresh
        return self._start(pair, c) + expand(c.dt, x) * _velocity(pair, c.start), memory

    def correct(self, x: Array, first: Pair, second: Pair, c: HeunTerms) -> Array:
        mean = (_velocity(first, c.start) + _velocity(second, c.stop)) / 2
        return self._start(first, c) + expand(c.dt, x) * mean

    def _start(self, pair: Pair, c: HeunTerms) -> Array:
        """x as the pair tells it, which differs from x under a coupled transform."""
        alpha, sigma = (
            expand(c.start.alpha, pair.noise),
            expand(c.start.sigma, pair.noise),
        )
        return alpha * pair.denoised + sigma * pair.noise


def heun() -> Heun:
    """Heun's method (explicit trapezoid) on the probability-flow ODE; order 2.

    The last step to t = 0 has no corrector. The corrector uses the same live guidance
    as its step and does not change the guidance state.

    NFE: 2 per step, 1 in the last.
    Source: Karras et al. 2022, arXiv:2206.00364, Algorithm 1, for any path.
    Differs from the source: steps are taken in noise time; with `paths.EDM` that is
        sigma, as in the source.
    """
    return Heun()


class MultistepTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    denoised: np.ndarray
    noise: np.ndarray
    change: np.ndarray  # multiplies denoised - previous denoised


class MultistepState(NamedTuple):
    previous: Array  # [B, *D]


@dataclasses.dataclass(frozen=True)
class DPMpp2M:
    """See `dpmpp_2m`."""

    stochastic: bool = False

    def stages(self, grid: np.ndarray) -> np.ndarray:
        return np.ones(len(grid) - 1, int)

    def coefficients(self, path: Path, grid: np.ndarray) -> MultistepTerms:
        with np.errstate(all="ignore"):
            now, then = path.node(grid[:-1]), path.node(grid[1:])
            log_snr = np.log(now.alpha / now.sigma)
            h = np.append(np.diff(log_snr), np.log(then.alpha / then.sigma)[-1])
            h[-1] -= log_snr[-1]
            ratio = np.append(np.nan, h[:-1]) / h
            gain = then.alpha - then.sigma * now.alpha / now.sigma
            change = gain / (2 * ratio)
        # First step: no history. Last step to t = 0 (h infinite): first order.
        usable = np.isfinite(change) & np.isfinite(h)
        return MultistepTerms(then.alpha, then.sigma, np.where(usable, change, 0.0))

    def init(self, x: Array) -> MultistepState:
        return MultistepState(jnp.zeros_like(x))

    def step(
        self,
        x: Array,
        memory: MultistepState,
        pair: Pair,
        c: MultistepTerms,
        fresh: Array | None,
    ) -> tuple[Array, MultistepState]:
        del fresh
        moved = expand(c.denoised, x) * pair.denoised + expand(c.noise, x) * pair.noise
        change = pair.denoised - memory.previous.astype(pair.denoised.dtype)
        memory = MultistepState(pair.denoised.astype(memory.previous.dtype))
        return moved + expand(c.change, x) * change, memory

    def correct(self, x: Array, first: Pair, second: Pair, c: MultistepTerms) -> Array:
        raise TypeError("DPMpp2M has no corrector.")


def dpmpp_2m() -> DPMpp2M:
    """DPM-Solver++(2M): multistep in denoised, order 2 at one evaluation per step.

        x_next = alpha_s denoised + sigma_s noise + c (denoised - previous denoised)

    with c = (alpha_s - sigma_s alpha_t / sigma_t) h / (2 h_previous), h the step in
    log(alpha / sigma). First order in the first step, and in a last one to t = 0.

    NFE: 1 per step. Memory: one copy of x.
    Source: Lu et al. 2022, arXiv:2211.01095, Algorithm 2.
    Differs from the source: written in (denoised, noise), which is the same for a
        consistent pair; a transform that sets the noise renoises with it.
    """
    return DPMpp2M()
