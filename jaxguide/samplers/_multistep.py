"""Samplers of one evaluation per step that remember earlier predictions.

All have the form, with D_k the denoised prediction k steps ago,

    x_next = a denoised + b noise + sum_k c_k (D_k - denoised) + f fresh

and take x to be what the pair says, alpha denoised + sigma noise. That is x itself,
unless a transform sets the noise (CFG++): then the step renoises with that noise,
while the history holds the guided predictions (or others: see `dpmpp_2m`).
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Pair
from jaxguide.paths import NOTHING, Array, Node, Path, as_number, expand
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_finite
from jaxguide.samplers._exponential import log_snr, mix, moment


class MultistepTerms(NamedTuple):
    """Coefficients of one step, host float64 [N]."""

    denoised: np.ndarray
    noise: np.ndarray
    fresh: np.ndarray
    past: tuple[np.ndarray, ...]  # the newest first
    # (1 / alpha, sigma) at the step's start, for the data that the noise alone says;
    # None where the history is that of `denoised`.
    start: tuple[np.ndarray, np.ndarray] | None = None


class History(NamedTuple):
    denoised: tuple[Array, ...]  # each [B, *D], the newest first


class MultistepRule(Protocol):
    """How the past enters. Hashable."""

    @property
    def memory(self) -> int:
        """How many earlier predictions are kept."""
        ...

    def past(self, node: Node) -> tuple[np.ndarray, ...]:
        """Weights [N] of D_k - denoised for k = 1 .. memory; `node` is a grid's."""
        ...


@dataclasses.dataclass(frozen=True)
class Multistep(Sampler):
    """See `dpmpp_2m`, `dpmpp_2m_sde`, `res_2m` and `unipc`."""

    rule: MultistepRule
    eta: float = 0.0
    history: str = "guided"

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def coefficients(self, path: Path, grid: np.ndarray) -> MultistepTerms:
        with np.errstate(all="ignore"):
            node = path.node(grid)
            decay = self.eta * np.diff(log_snr(node)) if self.eta else 0.0
            alpha, sigma = node.alpha[1:], node.sigma[1:]
            kept, fresh = np.exp(-decay), np.sqrt(-np.expm1(-2 * decay))
            terms = MultistepTerms(
                alpha,
                sigma * kept,
                sigma * fresh,
                self.rule.past(node),
                None if self.history == "guided" else _start(node),
            )
        return check_finite(self, terms, path, grid)

    def init(self, x: Array) -> History:
        return History((jnp.zeros_like(x),) * self.rule.memory)

    def step(
        self,
        x: Array,
        memory: History,
        pair: Pair,
        c: MultistepTerms,
        fresh: Array | None,
    ) -> tuple[Array, History]:
        now = remembered = pair.denoised
        moved = mix(c.denoised, now, c.noise, pair.noise)
        if self.history != "guided":
            assert c.start is not None
            over_alpha, sigma = (expand(each, x) for each in c.start)
            remembered = over_alpha * (x - sigma * pair.noise.astype(x.dtype))
        new = remembered if self.history == "unconditional" else now
        for weight, then in zip(c.past, memory.denoised, strict=True):
            moved = moved + expand(weight, now) * (then.astype(now.dtype) - new)
        if fresh is not None:
            moved = moved + expand(c.fresh, fresh) * fresh
        kept = (remembered.astype(x.dtype), *memory.denoised)[: self.rule.memory]
        return moved, History(kept)


def _start(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """(1 / alpha, sigma) at the starts of a grid's steps; 0 where no data is left,
    from where no solver takes a history."""
    over_alpha = np.where(node.alpha < NOTHING, 0.0, 1 / node.alpha)
    return over_alpha[:-1], node.sigma[:-1]


SOLVERS = ("midpoint", "heun")


@dataclasses.dataclass(frozen=True)
class LineRule:
    """D follows the line through the last two values, integrated as `solver` says."""

    solver: str
    eta: float = 0.0
    memory: int = 1

    def past(self, node: Node) -> tuple[np.ndarray, ...]:
        h = np.diff(log_snr(node))
        before = np.append(np.nan, h[:-1])
        rate = (1 + self.eta) * h
        area = moment(0, rate) / 2 if self.solver == "midpoint" else moment(1, rate)
        weight = -node.alpha[1:] * area * h / before
        # First step: no history. Last step to t = 0 (h infinite): first order.
        return (np.where(np.isfinite(weight), weight, 0.0),)


HISTORIES = ("guided", "unconditional", "mixed")


def dpmpp_2m(history: str = "guided") -> Multistep:
    """DPM-Solver++(2M): multistep in denoised, order 2 at one evaluation per step.

        x_next = alpha_s denoised + sigma_s noise + c (denoised - previous denoised)

    with c = alpha_s (1 - e^-h) h / (2 h_previous), h the step in log(alpha / sigma).
    First order in the first step, and in a last one to t = 0.

    Args:
        history: matters only with a transform that sets the noise (CFG++), where that
            noise is the unconditional one. "guided" keeps the guided `denoised`;
            "unconditional" takes both values of c's bracket from what the noise says,
            (x - sigma noise) / alpha, as the authors of CFG++ first released it;
            "mixed" the previous one alone, as their later code and ports of
            k-diffusion do.

    Raises:
        InputError: if `history` is unknown.

    NFE: 1 per step. Memory: one copy of x.
    Source: Lu et al. 2022, arXiv:2211.01095, Algorithm 2; with CFG++ read against
        CFGpp-diffusion/CFGpp, latent_diffusion.py ("dpm++_2m_cfg++").
    Differs from the source: written in (denoised, noise), which is the same for a
        consistent pair; a transform that sets the noise renoises with it.
    """
    if history not in HISTORIES:
        raise InputError(
            f"dpmpp_2m: need history in {HISTORIES}, got history={history!r}."
        )
    return Multistep(LineRule("midpoint"), history=history)


def dpmpp_2m_sde(eta: float = 1.0, *, solver: str = "midpoint") -> Multistep:
    """DPM-Solver++(2M) for the reverse SDE; one evaluation per step.

        x_next = alpha_s denoised + sigma_s e^(-eta h) noise
                 + c (denoised - previous denoised)
                 + sigma_s sqrt(1 - e^(-2 eta h)) fresh

    with c = alpha_s (1 - e^-H) h / (2 h_previous) ("midpoint") or
    alpha_s (1 - (1 - e^-H) / H) h / h_previous ("heun"), H = (1 + eta) h. First order
    in the first step and in one to t = 0, which adds no noise.

    Args:
        eta: >= 0; 0 is `dpmpp_2m`, 1 the reverse SDE of the forward process.
        solver: "midpoint", or "heun", which is `res_2m(eta)`.

    Raises:
        InputError: if `eta` is negative or infinite, or `solver` unknown.

    NFE: 1 per step. Memory: one copy of x. Stochastic unless eta = 0.
    Source: Lu et al. 2022, arXiv:2211.01095, Algorithm 4 (eta = 1); eta and the
        names of the solvers are of k-diffusion's `sample_dpmpp_2m_sde`.
    Differs from the source: fresh noise is drawn per step, k-diffusion's from a
        Brownian tree, which is the same in law. diffusers (`sde-dpmsolver++`) has
        eta = 1 only.
    """
    _check_eta("dpmpp_2m_sde", eta)
    if solver not in SOLVERS:
        raise InputError(
            f"dpmpp_2m_sde: need solver in {SOLVERS}, got solver={solver!r}."
        )
    return Multistep(LineRule(solver, float(eta)), float(eta))


def res_2m(eta: float = 0.0) -> Multistep:
    """RES, multistep: the line through two predictions is integrated exactly; order 2.

        x_next = alpha_s denoised + sigma_s e^(-eta h) noise
                 + alpha_s H phi_2(-H) h / h_previous (denoised - previous denoised)
                 + sigma_s sqrt(1 - e^(-2 eta h)) fresh

    with H = (1 + eta) h and phi_2(z) = (e^z - 1 - z) / z^2. `dpmpp_2m` has half of
    1 - e^-H where this has H phi_2(-H) = 1 - (1 - e^-H) / H: both are H / 2 for small
    steps, 0.43 and 0.57 at H = 2, 1/2 and 1 for large ones. It is exact where denoised
    is a line in log(alpha / sigma), `dpmpp_2m` only where it is constant.

    Args:
        eta: >= 0; 0 solves the ODE, 1 the reverse SDE of the forward process.

    Raises:
        InputError: if `eta` is negative or infinite.

    NFE: 1 per step. Memory: one copy of x. Stochastic unless eta = 0.
    Source: Zhang et al. 2023, arXiv:2308.02157, with c2 = -h_previous / h; known at
        second hand only, from the authors' `res_x0_rk2_step` (NVIDIA Cosmos).
    Differs from the source: noise follows the reverse SDE, there it is churned in
        before the step. The same as DPM-Solver++(2M) with diffusers' solver_type
        "heun".
    """
    _check_eta("res_2m", eta)
    return Multistep(LineRule("heun", float(eta)), float(eta))


def _check_eta(name: str, eta: float) -> None:
    if not 0 <= as_number(eta) < np.inf:
        raise InputError(f"{name}: need a finite eta >= 0, got eta={eta!r}.")
