"""Second-order samplers of two evaluations per step, at its start and its end."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxguide.guidance.evaluate import Pair
from jaxguide.paths import Array, Node, Path, expand
from jaxguide.samplers.exponential import log_snr, mix, moment


class HeunTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    dt: np.ndarray
    start: Node
    stop: Node


def _velocity(pair: Pair, node: Node) -> Array:
    x = pair.denoised
    return expand(node.dalpha, x) * pair.denoised + expand(node.dsigma, x) * pair.noise


def _two_stages(grid: np.ndarray) -> np.ndarray:
    """Two in every step but a last one to t = 0, where nothing is evaluated."""
    stages = np.full(len(grid) - 1, 2)
    if grid[-1] == 0:
        stages[-1] = 1
    return stages


@dataclasses.dataclass(frozen=True)
class Heun:
    """See `heun`."""

    stochastic: bool = False

    def stages(self, grid: np.ndarray) -> np.ndarray:
        return _two_stages(grid)

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
        return mix(c.start.alpha, pair.denoised, c.start.sigma, pair.noise)


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


class RESTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    denoised: np.ndarray
    noise: np.ndarray
    change: np.ndarray  # multiplies second denoised - first denoised


@dataclasses.dataclass(frozen=True)
class RES:
    """See `res_2s`."""

    stochastic: bool = False

    def stages(self, grid: np.ndarray) -> np.ndarray:
        return _two_stages(grid)

    def coefficients(self, path: Path, grid: np.ndarray) -> RESTerms:
        with np.errstate(all="ignore"):
            node = path.node(grid)
            share = moment(1, np.diff(log_snr(node)))
        alpha, sigma = node.alpha[1:], node.sigma[1:]
        return RESTerms(alpha, sigma, alpha * share)

    def init(self, x: Array) -> tuple[()]:
        del x
        return ()

    def step(
        self, x: Array, memory: Any, pair: Pair, c: RESTerms, fresh: Array | None
    ) -> tuple[Array, Any]:
        del x, fresh
        return mix(c.denoised, pair.denoised, c.noise, pair.noise), memory

    def correct(self, x: Array, first: Pair, second: Pair, c: RESTerms) -> Array:
        moved = mix(c.denoised, first.denoised, c.noise, first.noise)
        return moved + expand(c.change, x) * (second.denoised - first.denoised)


def res_2s() -> RES:
    """RES, single step: an exponential Runge-Kutta method of order 2.

        x_end  = alpha_s denoised + sigma_s noise
        x_next = x_end + alpha_s h phi_2(-h) (denoised at x_end - denoised)

    with h the step in log(alpha / sigma), h phi_2(-h) = 1 - (1 - e^-h) / h, and 1 in a
    step from t = 1 where alpha = 0. The last step to t = 0 has one stage. The second
    stage uses the same live guidance as its step and does not change the guidance
    state; a noise that a transform sets is taken from the first stage.

    NFE: 2 per step, 1 in the last.
    Source: Zhang et al. 2023, arXiv:2308.02157, with c2 = 1 (ETD2RK of Cox and
        Matthews 2002); known at second hand only, from the authors' code (NVIDIA
        Cosmos, `res_x0_rk2_step`).
    Differs from the source: the second stage is at the end of the step, where the
        source has c2 = 1/2 by default: half way in log(alpha / sigma). It solves the
        ODE; the source's noise is churned in before a step.
    """
    return RES()
