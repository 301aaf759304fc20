"""UniPC: a predictor and a corrector from one evaluation per step.

Per step of the source, the corrector first revises x with the new evaluation and the
predictor then leaves from the revised x. Both are linear in the evaluations and in x,
so the two together are one linear combination of the last `order` + 1 of them, whose
weights are worked out here on the host: revising costs nothing while sampling.
"""

import dataclasses

import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths import Node, is_integer
from jaxguide.samplers._checks import check_flag
from jaxguide.samplers._exponential import log_snr, moment
from jaxguide.samplers._multistep import Multistep

VARIANTS = ("bh1", "bh2")


@dataclasses.dataclass(frozen=True)
class UniPCRule:
    """See `unipc`."""

    order: int
    variant: str
    corrector: bool
    lower_order_final: bool

    @property
    def memory(self) -> int:
        # One more for the corrector: it corrects the step before, whose own start is
        # one evaluation further back.
        return self.order if self.corrector else self.order - 1

    def past(self, node: Node) -> tuple[np.ndarray, ...]:
        clock = log_snr(node)
        table = np.zeros((len(clock) - 1, self.memory))
        revised = np.zeros(self.memory)  # what the corrector adds to x, in D_k - D_0
        for i in range(len(table)):
            offsets, h = self._offsets(clock, i)
            predict = self._fit(offsets, h)
            # The correction of the step before changes x, and a step multiplies x by
            # the ratio of the sigmas: so its weights are multiplied here on the host.
            table[i] = node.sigma[i + 1] / node.sigma[i] * revised
            table[i, : len(predict)] += node.alpha[i + 1] * predict
            if self.corrector:
                revised = node.alpha[i + 1] * self._revise(offsets, h, predict)
        return tuple(table.T)

    def _offsets(self, clock: np.ndarray, i: int) -> tuple[np.ndarray, float]:
        """Times of the evaluations before step i, in steps from its start; and h."""
        h = float(clock[i + 1] - clock[i])
        left = len(clock) - 1 - i
        # High orders extrapolate; after the last steps nothing damps their error.
        order = min(self.order, left) if self.lower_order_final else self.order
        times = clock[max(i - order + 1, 0) : i][::-1]
        if not np.isfinite(h):  # from nothing but noise, or to t = 0: first order
            return np.zeros(0), h
        return (times[np.isfinite(times)] - clock[i]) / h, h

    def _fit(self, offsets: np.ndarray, h: float) -> np.ndarray:
        """Weights of D(offset) - D_0 that integrate polynomials in time exactly.

        Of a single value only half of B(h) is kept, as in the source.
        """
        if len(offsets) == 1:
            half = h / 2 if self.variant == "bh1" else float(moment(0, h)) / 2
            return half / offsets
        # Two or three unknowns at most, solved once per step on the host.
        degrees = np.arange(1, len(offsets) + 1)
        areas = np.array([float(moment(int(k), h)) for k in degrees])
        try:
            return np.linalg.solve(offsets[None] ** degrees[:, None], areas)
        except np.linalg.LinAlgError:  # two times that are one in log-SNR
            return np.full(len(offsets), np.nan)

    def _revise(self, offsets: np.ndarray, h: float, predict: np.ndarray) -> np.ndarray:
        """Corrector less predictor, as weights of D_k - D_0 seen from the step's end.

        There the step's start is D_1, and D - D_1 = (D - D_0) - (D_1 - D_0).
        """
        # The new evaluation is one more point of the polynomial, at the step's end.
        weights = self._fit(np.append(offsets, 1.0), h)
        revised = np.zeros(self.memory)
        # An infinite step (from t = 1 where alpha is 0) has no finite correction
        # under "bh1", and is left as it was predicted.
        if np.all(np.isfinite(weights)):
            revised[1 : len(weights)] = weights[:-1] - predict
            # Every term is a difference to D_1, so D_1 is taken off by all weights.
            revised[0] = -revised.sum() - weights[-1]
        return revised


def unipc(
    order: int = 2,
    *,
    variant: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool = True,
) -> Multistep:
    """UniPC: multistep predictor and corrector in denoised; one evaluation per step.

        x_c    = the step before, done again with the new denoised in the polynomial
        x_next = sigma_s / sigma_t x_c + alpha_s (1 - e^-h) denoised
                 + alpha_s sum_k w_k (D_k - denoised)

    for steps h in log(alpha / sigma) of any path. The evaluation was made at x, before
    it was corrected, and is not repeated. The accuracy is of order `order` + 1 with
    the corrector, `order` without; at most 3 and 2, as the first steps have less
    history, and at most 2 where `lower_order_final` acts. Not for `recurrent`, which
    would correct x again after renoising it: there take corrector=False.

    Args:
        order: of the predictor, 1 to 3; 2 is advised with guidance, 3 without.
        variant: B(h) is h ("bh1", advised for fewer than 10 unguided steps) or
            1 - e^-h ("bh2"). It matters only to a predictor of order 2 and to the
            corrector of a step of order 1: elsewhere it cancels.
        corrector: False leaves the predictor: `ddim()` for order 1, `dpmpp_2m()` for
            order 2 with "bh2" but for the last step.
        lower_order_final: whether the last steps fall to order 2 and 1, which is
            stable for few steps; a step to t = 0 always is of order 1.

    Raises:
        InputError: if `order` is not 1, 2 or 3, `variant` unknown, or a switch is
            neither True nor False.

    NFE: 1 per step. Memory: `order` copies of x, one less without the corrector.
    Source: Zhao et al. 2023, arXiv:2302.04867, Algorithms 1 and 2 and Appendix (data
        prediction); read against diffusers' UniPCMultistepScheduler.
    Differs from the source: corrector and predictor are merged into one linear
        combination: the same numbers for a consistent pair; a transform that sets the
        noise renoises with it. From t = 1 where alpha = 0, with h infinite, the first
        step has "bh2"'s limit as corrector and "bh1" none, and later steps leave its
        prediction out (diffusers starts at sigma = 1 - 1e-6, where "bh1" corrects by
        7 times the change).
    """
    if not is_integer(order) or order not in (1, 2, 3):
        raise InputError(f"unipc: need order in (1, 2, 3), got order={order!r}.")
    if variant not in VARIANTS:
        raise InputError(f"unipc: need variant in {VARIANTS}, got variant={variant!r}.")
    check_flag("unipc", corrector=corrector)
    check_flag("unipc", lower_order_final=lower_order_final)
    return Multistep(UniPCRule(order, variant, corrector, lower_order_final))
