"""SiT's second sampler for its SDE: noise first, then Heun's step of the drift."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxguide.guidance import Pair
from jaxguide.paths import Array, Path, expand
from jaxguide.samplers._checks import check_finite
from jaxguide.samplers._exponential import mix
from jaxguide.samplers._second import TwoStages
from jaxguide.samplers._single import check_diffusion, diffusion


class SDEHeunTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    fresh: np.ndarray  # of the noise before the step
    denoised: np.ndarray  # to the step's end
    noise: np.ndarray
    # To the middle of the slopes: x and half a step, then the other half.
    half_denoised: np.ndarray
    half_noise: np.ndarray
    end_denoised: np.ndarray
    end_noise: np.ndarray


@dataclasses.dataclass(frozen=True)
class SDEHeun(TwoStages):
    """See `sde_heun`."""

    form: str
    scale: float
    last: str

    @property
    def stochastic(self) -> bool:
        return True

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Two in every step but the last, unless that is like the others."""
        stages = np.full(len(grid) - 1, 2)
        stages[-1] = 2 if self.last == "noisy" else 1
        return stages

    def coefficients(self, path: Path, grid: np.ndarray) -> SDEHeunTerms:
        dt, two = np.diff(grid), self.stages(grid) == 2
        with np.errstate(all="ignore"):
            start, stop = path.node(grid[:-1]), path.node(grid[1:])
            w, end_w = (diffusion(self.form, self.scale, at) for at in (start, stop))
            fresh = np.where(two, np.sqrt(2 * w * -dt), 0.0)
            # The drift is velocity - w score, and -score is noise / sigma.
            slope = start.dsigma + w / start.sigma
            end_slope = stop.dsigma + end_w / stop.sigma
            denoised, noise = start.alpha + dt * start.dalpha, start.sigma + dt * slope
            if self.last == "tweedie":
                denoised[-1], noise[-1] = 1.0, 0.0
            if self.last == "euler":
                noise[-1] = (start.sigma + dt * start.dsigma)[-1]
            terms = SDEHeunTerms(
                fresh,
                denoised,
                noise,
                start.alpha + dt / 2 * start.dalpha,
                start.sigma + dt / 2 * slope,
                np.where(two, dt / 2 * stop.dalpha, 0.0),
                np.where(two, dt / 2 * end_slope, 0.0),
            )
        return check_finite(self, terms, path, grid)

    def churn(self, x: Array, c: SDEHeunTerms, fresh: Array) -> Array:
        return x + expand(c.fresh, x) * fresh

    def step(
        self, x: Array, memory: tuple, pair: Pair, c: SDEHeunTerms, fresh: Array | None
    ) -> tuple[Array, tuple]:
        del x, fresh
        return mix(c.denoised, pair.denoised, c.noise, pair.noise), memory

    def correct(
        self,
        x: Array,
        first: Pair,
        second: Pair,
        c: SDEHeunTerms,
        fresh: tuple[Array, Array] | None,
    ) -> Array:
        del x, fresh
        begin = mix(c.half_denoised, first.denoised, c.half_noise, first.noise)
        return begin + mix(c.end_denoised, second.denoised, c.end_noise, second.noise)


def sde_heun(form: str = "sigma", *, scale: float = 1.0, last: str = "mean") -> SDEHeun:
    """SiT's "Heun" for its SDE: noise first, then Heun's step of the drift.

        x_e    = x + sqrt(2 w(t) |dt|) fresh
        x_2    = x_e + dt drift(x_e, t)
        x_next = x_e + dt / 2 (drift(x_e, t) + drift(x_2, t + dt))
        with drift = velocity - w(t) score

    Of order 1 in law, as `euler_maruyama`: the network is told t while the noise is
    there already. The last step has one stage and no noise. Guidance in the second
    stage: see `heun`.

    Args:
        form, scale, last: as `euler_maruyama`.

    Raises:
        InputError: as `euler_maruyama`; with last = "noisy" also where the grid ends at
            t = 0, where score has no finite factor.

    NFE: 2 per step, 1 in the last. Stochastic.
    Source: Ma et al. 2024, SiT, arXiv:2401.08740; willisma/SiT @947f95b, transport/.
    Differs from the source: two network calls per step where the code makes four.
    """
    check_diffusion("sde_heun", form, scale, last)
    return SDEHeun(form, float(scale), last)
