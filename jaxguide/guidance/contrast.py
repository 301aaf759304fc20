"""Transforms of the form `guided + weight(t) * (a - b)`: two branches, one weight."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxguide import schedules
from jaxguide.guidance.base import (
    ANY,
    RAW,
    Branch,
    Guided,
    Network,
    Outputs,
    Step,
    add_scaled,
    check_number,
    check_space,
)
from jaxguide.paths import Array
from jaxguide.schedules import Schedule

Weight = float | Array | Callable | Schedule


@dataclasses.dataclass(frozen=True)
class Contrast:
    """`guided + (weight(t) - neutral) * (toward - mean(away))`, stateless.

    `space` is where the difference is taken; `ANY` for contrasts that do not depend
    on it (both branches at the same x and t).
    """

    weight: Any  # a Schedule; inside `apply` its number at this step
    away: tuple[Branch, ...]
    toward: Branch = RAW
    neutral: float = 0.0
    space: str = ANY
    name: str = "contrast"

    def init(self, x: Array) -> tuple[()]:
        """No state."""
        del x
        return ()

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Both sides of the difference."""
        del network
        return (self.toward, *self.away)

    def live(self, t: float) -> bool:
        """False where the weight is neutral or both sides are the same call."""
        here = [_at_time(branch, t) for branch in (self.toward, *self.away)]
        return len(set(here)) > 1 and not self.weight.neutral_at(t, self.neutral)

    def apply(
        self,
        guided: Guided,
        state: tuple[()],
        outputs: Outputs,
        step: Step,
        *,
        live: bool,
    ) -> tuple[Guided, tuple[()]]:
        """Adds the weighted difference."""
        del step
        if not live:
            return guided, state
        away = sum(outputs.read(b, self.space) for b in self.away[1:])
        away = (outputs.read(self.away[0], self.space) + away) / len(self.away)
        difference = outputs.read(self.toward, self.space) - away
        difference = outputs.to_native(difference, self.space)
        weight = self.weight - self.neutral
        prediction = add_scaled(guided.prediction, weight, difference)
        return guided._replace(prediction=prediction), state


jax.tree_util.register_dataclass(
    Contrast,
    data_fields=["weight"],
    meta_fields=["away", "toward", "neutral", "space", "name"],
)


def _at_time(branch: Branch, t: float) -> Branch:
    """What the branch is at host time `t`: a shift that is clipped away is RAW."""
    with jax.ensure_compile_time_eval():
        same = branch.time is None or bool(branch.time(t) == t)
    return dataclasses.replace(branch, time=None) if same else branch


def contrast(
    weight: Weight,
    away: Branch | tuple[Branch, ...],
    *,
    toward: Branch = RAW,
    neutral: float = 0.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = ANY,
    name: str = "contrast",
) -> Contrast:
    """`guided + (weight(t) - neutral) * (toward - mean(away))`.

    The building block of all linear methods, and the shortest way to a new one.

    Args:
        weight: dimensionless number, array [B], function of noise time, or `Schedule`.
        away: branch or branches pushed away from; several are averaged.
        toward: branch pushed towards, by default the raw conditional prediction.
        neutral: the weight that switches the term off (1 for scales).
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the difference is taken, one of `SPACES`.
        name: for printing and error messages.

    Returns:
        A transform without state.

    Raises:
        ValueError: for a number that is not finite, an unknown space or bad window.

    NFE: +1 per distinct branch that is not the raw prediction.
    """
    check_number(name, "weight" if neutral == 0 else "scale", weight)
    check_space(name, space)
    schedule = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=neutral)
    away = away if isinstance(away, tuple) else (away,)
    return Contrast(schedule, away, toward, neutral, space, name)


def cfg(scale: Weight, *, t_lo: float = 0.0, t_hi: float = 1.0) -> Contrast:
    """Classifier-free guidance, in an interval of noise time if wanted.

        raw + (scale(t) - 1) * (raw - null)  =  null + scale(t) * (raw - null)

    A scale of 1 is no guidance. Papers that write (1 + w) use w = scale - 1.

    Args:
        scale: dimensionless; number, array [B], function of noise time, `Schedule`.
        t_lo, t_hi: guidance interval `[t_lo, t_hi)`; scale 1 outside, at no cost.

    Returns:
        A transform without state; it needs the condition `null`.

    Raises:
        ValueError: if `scale` is not finite or the interval is empty.

    NFE: +1 inside the interval.
    Source: Ho and Salimans 2022, arXiv:2207.12598, Eq. 6; the interval:
        Kynkaanniemi et al. 2024, arXiv:2404.07724.
    Differs from the source: the paper's w is scale - 1.

    >>> cfg(1.5, t_lo=0.15, t_hi=0.95).live(0.95)
    False
    """
    away = Branch(cond="null")
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="cfg")


def negative(scale: Weight, *, t_lo: float = 0.0, t_hi: float = 1.0) -> Contrast:
    """Guidance away from a negative condition instead of the null one.

        raw + (scale(t) - 1) * (raw - negative)

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the condition `negative`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: the negative prompt of Stable Diffusion practice; Eq. 6 of
        arXiv:2207.12598 with the null condition replaced.
    Differs from the source: nothing known.
    """
    away = Branch(cond="negative")
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="negative")


def compose(
    condition: str, weight: Weight, *, t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """One more condition, added (AND, weight > 0) or removed (NOT, weight < 0).

        guided + weight(t) * (condition - null)

    With `cfg(s)` to its left: null + s (raw - null) + weight (condition - null).

    Args:
        condition: name of an entry of the sampler's conditions.
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `condition` and `null`.

    Raises:
        ValueError: if `weight` is not finite or the window is empty.

    NFE: +2 inside the window; `null` is shared with `cfg`, so +1 beside it.
    Source: Liu et al. 2022, Composable Diffusion, arXiv:2206.01714, Eqs. 11 and 13.
    Differs from the source: one condition is the raw prediction and has its own scale.
    """
    name = f"compose[{condition}]"
    toward, away = Branch(cond=condition), Branch(cond="null")
    return contrast(weight, away, toward=toward, t_lo=t_lo, t_hi=t_hi, name=name)


def autoguidance(
    scale: Weight, *, weak: str = "weak", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """Guidance by a weaker network that sees the same condition.

        raw + (scale(t) - 1) * (raw - weak)

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        weak: name of an entry of the sampler's `networks`: fewer parameters, less
            training, or both, with the same data and path.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the network `weak`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the weak network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3.
    Differs from the source: nothing known.
    """
    away = Branch(network=weak)
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="autoguidance")
