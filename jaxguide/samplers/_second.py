"""Second-order samplers of two evaluations per step: its start and a later time."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Pair
from jaxguide.paths import Array, Node, Path, as_number, expand
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_finite
from jaxguide.samplers._exponential import log_snr, mix, moment


class HeunTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    dt: np.ndarray
    start: Node
    stop: Node


def _velocity(pair: Pair, node: Node) -> Array:
    x = pair.denoised
    return expand(node.dalpha, x) * pair.denoised + expand(node.dsigma, x) * pair.noise


class TwoStages(Sampler):
    """The frame of a sampler that evaluates at a step's start and once more."""

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Two in every step but a last one to t = 0, where nothing is evaluated."""
        stages = np.full(len(grid) - 1, 2)
        if grid[-1] == 0:
            stages[-1] = 1
        return stages


@dataclasses.dataclass(frozen=True)
class Heun(TwoStages):
    """See `heun`."""

    last: str = "euler"

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Two in every step, unless the last one to t = 0 is Euler's."""
        if self.last == "heun":
            return np.full(len(grid) - 1, 2)
        return super().stages(grid)

    def coefficients(self, path: Path, grid: np.ndarray) -> HeunTerms:
        with np.errstate(all="ignore"):
            terms = HeunTerms(np.diff(grid), path.node(grid[:-1]), path.node(grid[1:]))
        slope = terms.stop.dsigma[self.stages(grid) == 2]
        if not np.all(np.abs(slope) < 1e30):  # floored, so never infinite here
            raise InputError(
                "heun: need a finite time derivative at the grid's end for "
                f"last='heun', which {path!r} does not have, got t={float(grid[-1])!r}."
                " Use last='euler', or end the grid above 0."
            )
        return terms

    def step(
        self, x: Array, memory: Any, pair: Pair, c: HeunTerms, fresh: Array | None
    ) -> tuple[Array, Any]:
        del fresh
        return self._start(pair, c) + expand(c.dt, x) * _velocity(pair, c.start), memory

    def correct(
        self, x: Array, first: Pair, second: Pair, c: HeunTerms, fresh: Any
    ) -> Array:
        del fresh
        mean = (_velocity(first, c.start) + _velocity(second, c.stop)) / 2
        return self._start(first, c) + expand(c.dt, x) * mean

    def _start(self, pair: Pair, c: HeunTerms) -> Array:
        """x as the pair gives it, which differs from x under a coupled transform."""
        return mix(c.start.alpha, pair.denoised, c.start.sigma, pair.noise)


ENDS = ("euler", "heun")


def heun(last: str = "euler") -> Heun:
    """Heun's method (explicit trapezoid) on the probability-flow ODE; order 2.

    The corrector uses the same live guidance as its step and does not change the
    guidance state.

    Args:
        last: the step to t = 0. "euler" has no corrector, as in EDM; "heun" evaluates
            the network at t = 0 too, as SiT does with torchdiffeq's `heun2`: for paths
            with a finite slope there (`Linear`, `GVP`, `EDM`) and networks whose output
            gives the noise there (velocity, noise, score).

    Raises:
        InputError: if `last` is unknown; when sampling, if there is no slope at t = 0.

    NFE: 2 per step, 1 in the last unless last = "heun".
    Source: Karras et al. 2022, arXiv:2206.00364, Algorithm 1, for any path; torchdiffeq
        `heun2` on the grid's times.
    Differs from the source: steps are taken in noise time; with `paths.EDM` that is
        sigma, as in the source.
    """
    if last not in ENDS:
        raise InputError(f"heun: need last in {ENDS}, got last={last!r}.")
    return Heun(last)


class ExponentialTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    denoised: np.ndarray  # to the second stage
    noise: np.ndarray
    fresh: np.ndarray
    end_denoised: np.ndarray
    end_noise: np.ndarray
    change: np.ndarray  # multiplies second denoised - first denoised
    end_fresh: np.ndarray  # multiplies the noise that the second stage had
    end_other: np.ndarray  # multiplies the other draw


@dataclasses.dataclass(frozen=True)
class Exponential(TwoStages):
    """An exponential Runge-Kutta method of two stages in log-SNR."""

    reach: float  # of the second stage, as a share of the step in log-SNR
    eta: float = 0.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def kept(self, h: np.ndarray) -> np.ndarray:
        """What a step h leaves of the old noise, as a share of the path's sigma."""
        raise NotImplementedError

    def area(self, h: np.ndarray) -> np.ndarray:
        """Integral of the slope from the first denoised to one at the step's end."""
        raise NotImplementedError

    def second_times(self, path: Path, grid: np.ndarray) -> np.ndarray:
        """At `reach`; at the step's end where the step is infinite in log-SNR."""
        if self.reach == 1:
            return grid[1:]
        with np.errstate(all="ignore"):
            clock = log_snr(path.node(grid))
            middle = clock[:-1] + self.reach * np.diff(clock)
            times = np.asarray(path.time(np.exp(-middle)), np.float64)
        return np.where(np.isfinite(middle), times, grid[1:])

    def coefficients(self, path: Path, grid: np.ndarray) -> ExponentialTerms:
        with np.errstate(all="ignore"):
            start, stop = path.node(grid[:-1]), path.node(grid[1:])
            middle = path.node(self.second_times(path, grid))
            before, after = log_snr(start), log_snr(stop)
            h, part = after - before, log_snr(middle) - before
            reach = np.where(np.isfinite(h), part / h, 1.0)
            shared = self._shared(before, log_snr(middle), after)
            left, end_left = self._kept(part), self._kept(h)
            area = self.area(h - np.log(end_left)) / reach
            spread = stop.sigma * np.sqrt(1 - end_left**2)
        terms = ExponentialTerms(
            middle.alpha,
            middle.sigma * left,
            middle.sigma * np.sqrt(1 - left**2),
            stop.alpha,
            stop.sigma * end_left,
            stop.alpha * area,
            spread * shared,
            spread * np.sqrt(1 - shared**2),
        )
        return check_finite(self, terms, path, grid)

    def _kept(self, h: np.ndarray) -> np.ndarray:
        return self.kept(h) if self.eta else np.ones_like(h)

    @staticmethod
    def _shared(start: np.ndarray, middle: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Correlation of a Brownian motion's steps to `middle` and to `stop`.

        Its clock is sigma / alpha; the arguments are its negative logarithms.
        """
        rest = np.expm1(start - middle) / np.expm1(start - stop)
        return np.where(np.isfinite(stop - start), np.sqrt(rest), 1.0)

    def step(
        self,
        x: Array,
        memory: Any,
        pair: Pair,
        c: ExponentialTerms,
        fresh: Array | None,
    ) -> tuple[Array, Any]:
        moved = mix(c.denoised, pair.denoised, c.noise, pair.noise)
        if fresh is not None:
            moved = moved + expand(c.fresh, x) * fresh
        return moved, memory

    def correct(
        self, x: Array, first: Pair, second: Pair, c: ExponentialTerms, fresh: Any
    ) -> Array:
        moved = mix(c.end_denoised, first.denoised, c.end_noise, first.noise)
        moved = moved + expand(c.change, x) * (second.denoised - first.denoised)
        if fresh is None:
            return moved
        return moved + mix(c.end_fresh, fresh[0], c.end_other, fresh[1])


@dataclasses.dataclass(frozen=True)
class RES(Exponential):
    """See `res_2s`."""

    def kept(self, h: np.ndarray) -> np.ndarray:
        return np.exp(-self.eta * h)

    def area(self, h: np.ndarray) -> np.ndarray:
        return moment(1, h)


@dataclasses.dataclass(frozen=True)
class DPMpp(Exponential):
    """See `dpmpp_sde`."""

    def kept(self, h: np.ndarray) -> np.ndarray:
        return np.sqrt(1 + self.eta**2 * np.expm1(-2 * h))

    def area(self, h: np.ndarray) -> np.ndarray:
        return moment(0, h) / 2


def res_2s(c2: float = 0.5, *, eta: float = 0.0) -> RES:
    """RES, single step: an exponential Runge-Kutta method of order 2.

        x_2    = alpha_2 denoised + sigma_2 e^(-eta c2 h) noise + ... fresh
        x_next = alpha_s denoised + sigma_s e^(-eta h) noise
                 + alpha_s H phi_2(-H) / c2 (denoised at x_2 - denoised)
                 + sigma_s sqrt(1 - e^(-2 eta h)) fresh

    with h the step in log(alpha / sigma), x_2 at `c2` of it, H = (1 + eta) h and
    H phi_2(-H) = 1 - (1 - e^-H) / H. A step from t = 1 where alpha = 0 has no such
    place and takes c2 = 1; the last step to t = 0 has one stage. The second stage uses
    the same live guidance as its step, with schedules read at its own time, and does
    not change the guidance state; a noise that a transform sets is taken from the
    first stage. Fresh noise: see `dpmpp_sde`.

    Args:
        c2: where in the step the second stage is, 0 < c2 <= 1; 1 is its end.
        eta: >= 0; 0 solves the ODE, 1 the reverse SDE of the forward process.

    Raises:
        InputError: if `c2` is outside (0, 1], or `eta` negative or infinite.

    NFE: 2 per step, 1 in the last. Stochastic unless eta = 0.
    Source: Zhang et al. 2023, arXiv:2308.02157 (c2 = 1 is ETD2RK of Cox and Matthews
        2002); known at second hand only, from the authors' code (NVIDIA Cosmos,
        `res_x0_rk2_step`).
    Differs from the source: noise follows the reverse SDE, there it is churned in
        before the step.
    """
    _check_reach("res_2s", c2=c2)
    if not 0 <= as_number(eta) < np.inf:
        raise InputError(f"res_2s: need a finite eta >= 0, got eta={eta!r}.")
    return RES(float(c2), float(eta))


def dpmpp_sde(eta: float = 1.0, *, r: float = 0.5) -> DPMpp:
    """DPM-Solver++ for the reverse SDE, single step ("DPM++ SDE"); two evaluations.

        x_2    = alpha_2 denoised + sigma_2 k_2 noise + sigma_2 sqrt(1 - k_2^2) fresh
        x_next = alpha_s denoised + sigma_s k noise
                 + alpha_s (1 - e^-h k) / (2 r) (denoised at x_2 - denoised)
                 + sigma_s sqrt(1 - k^2) fresh
        with k^2 = 1 - eta^2 (1 - e^(-2 h)), and k_2 with r h

    and h the step in log(alpha / sigma), x_2 at `r` of it. The two noises are those of
    one Brownian motion in sigma / alpha: their correlation is the root of the share of
    the step in sigma / alpha that lies before x_2. With independent noises the variance
    of the samples would have an error of order 1 instead of 2. A step from t = 1 where
    alpha = 0 takes r = 1; the last step to t = 0 has one stage and adds no noise.
    Guidance in the second stage: see `res_2s`.

    Args:
        eta: share of the ancestral noise as in `ddim`, 0 to 1. 0 is DPM-Solver++(2S),
            1 the reverse SDE of the forward process.
        r: where in the step the second stage is, 0 < r <= 1; 1 is its end.

    Raises:
        InputError: if `eta` is outside [0, 1] or `r` outside (0, 1].

    NFE: 2 per step, 1 in the last. Stochastic unless eta = 0.
    Source: k-diffusion's `sample_dpmpp_sde`; eta = 0: Lu et al. 2022,
        arXiv:2211.01095, Algorithm 1.
    Differs from the source: both noises are drawn per step with the correlation that
        k-diffusion's Brownian tree gives them. k-diffusion allows eta > 1, cut off
        where no old noise is left. diffusers has it as `DPMSolverSDEScheduler`
        (eta = 1, r = 1/2) and as `DPMSolverSinglestepScheduler`, whose noises are
        independent.
    """
    _check_reach("dpmpp_sde", r=r)
    if not 0 <= as_number(eta) <= 1:
        raise InputError(f"dpmpp_sde: need 0 <= eta <= 1, got eta={eta!r}.")
    return DPMpp(float(r), float(eta))


def _check_reach(name: str, **given: float) -> None:
    ((what, reach),) = given.items()
    if not 0 < as_number(reach) <= 1:
        raise InputError(f"{name}: need 0 < {what} <= 1, got {what}={reach!r}.")
