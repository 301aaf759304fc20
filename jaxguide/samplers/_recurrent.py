"""Every step of a sampler several times, with fresh noise in between."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Pair
from jaxguide.paths import Array, Path, expand, is_integer
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_finite
from jaxguide.samplers._multistep import Multistep
from jaxguide.samplers._unipc import UniPCRule


class RecurrentTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    inner: Any
    kept: np.ndarray  # multiplies x when noise is added again
    fresh: np.ndarray


@dataclasses.dataclass(frozen=True)
class Recurrent(Sampler):
    """See `recurrent`."""

    inner: Sampler
    turns: int

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def repeats(self) -> int:
        return self.turns

    def stages(self, grid: np.ndarray) -> np.ndarray:
        return self.inner.stages(grid) * self.turns

    def second_times(self, path: Path, grid: np.ndarray) -> np.ndarray:
        return self.inner.second_times(path, grid)

    def coefficients(self, path: Path, grid: np.ndarray) -> RecurrentTerms:
        with np.errstate(all="ignore"):
            start, stop = path.node(grid[:-1]), path.node(grid[1:])
        kept = start.alpha / stop.alpha
        fresh = np.sqrt(np.maximum(start.sigma**2 - (kept * stop.sigma) ** 2, 0.0))
        check_finite(self, (kept, fresh), path, grid)
        return RecurrentTerms(self.inner.coefficients(path, grid), kept, fresh)

    def init(self, x: Array) -> Any:
        return self.inner.init(x)

    def churn(self, x: Array, c: RecurrentTerms, fresh: Array) -> Array:
        return self.inner.churn(x, c.inner, fresh) if self.inner.stochastic else x

    def step(
        self, x: Array, memory: Any, pair: Pair, c: RecurrentTerms, fresh: Array | None
    ) -> tuple[Array, Any]:
        fresh = fresh if self.inner.stochastic else None
        return self.inner.step(x, memory, pair, c.inner, fresh)

    def correct(
        self, x: Array, first: Pair, second: Pair, c: RecurrentTerms, fresh: Any
    ) -> Array:
        fresh = fresh if self.inner.stochastic else None
        return self.inner.correct(x, first, second, c.inner, fresh)

    def renoise(self, x: Array, c: RecurrentTerms, fresh: Array) -> Array:
        """From the step's end back to its start, as the path adds noise."""
        return expand(c.kept, x) * x + expand(c.fresh, x) * fresh


def recurrent(sampler: Sampler, repeats: int) -> Sampler:
    """Takes every step `repeats` times, adding the step's noise again in between.

        x_s = step(x_t);   x_t <- kept x_s + sqrt(sigma_t^2 - kept^2 sigma_s^2) fresh
        with kept = alpha_t / alpha_s

    Gives guidance that pushes off the data (energies: FreeDoM, TFG, universal guidance)
    time to settle at each noise level. Transforms see the memory of the step before
    every time, and draw anew; their state is kept once per step.

    Args:
        sampler: any but `unipc` with its corrector, which would correct x again after
            it was renoised; a deterministic one becomes stochastic (`generate` needs
            keys).
        repeats: integer >= 1; 1 is the sampler itself.

    Raises:
        InputError: if `repeats` is no positive integer, or the sampler corrects the
            step before.

    NFE: `repeats` times the sampler's.
    Source: Lugmayr et al. 2022, RePaint, arXiv:2201.09865; as recurrence in Ye et al.
        2024, TFG, arXiv:2409.15761, Algorithm 1; read against a port of
        YWolfeee/Training-Free-Guidance, methods/tfg.py.
    Differs from the source: for any path and any sampler of this package; the source
        has variance-preserving DDIM.
    """
    if not is_integer(repeats) or repeats < 1:
        raise InputError(
            f"recurrent: need an integer repeats >= 1, got repeats={repeats!r}. "
            "1 is the sampler itself."
        )
    if repeats == 1:
        return sampler
    rule = sampler.rule if isinstance(sampler, Multistep) else None
    if isinstance(rule, UniPCRule) and rule.corrector:
        raise InputError(
            "recurrent: need a sampler that leaves the steps before as they are, got "
            f"sampler={sampler!r}. Use unipc(corrector=False)."
        )
    return Recurrent(sampler, int(repeats))
