"""Self-Guidance: contrasts of one network with itself at a noisier time.

Li et al. 2024, arXiv:2412.05827. The paper writes Eq. 9 in scores; the authors' code
subtracts raw network outputs. For velocity networks these are different methods (the
corrections even have opposite signs near t = 1 and t = 0), so both are offered:
`space="native"` is the code, `space="score"` the paper.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import RAW, Branch, Guided, View
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._numbers import NATIVE, check_named_space, check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array


@dataclasses.dataclass(frozen=True)
class Shift:
    """A noisier time: t + amount + proportion t, clipped to 1."""

    amount: float = 0.0
    proportion: float = 0.0

    def __call__(self, t: Any, next_t: Any) -> Any:
        del next_t
        later = t + self.amount + self.proportion * t
        return jnp.minimum(later, 1.0) if isinstance(t, jax.Array) else min(later, 1.0)


def sg(
    weight: Weight,
    *,
    shift: float = 0.01,
    dynamic: bool = False,
    space: str = NATIVE,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Self-Guidance: away from the same network at a noisier time, with the same x.

        guided + weight(t) * (raw_t - raw_{t + shift})         (clipped to t = 1)

    Not invariant to the prediction space, see `space`. Where the clip takes the whole
    shift away (t = 1) the term is 0 and costs nothing.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        shift: noise time added, in (0, 1); 0.01 is 10 of 1000 timesteps. With
            `dynamic` the shift is `shift * t`, in proportion to noise time.
        dynamic: whether the shift grows with t (paper Sec. 4.1, delta(t) = t / const).
        space: "native" as the authors' code (raw network outputs), "score" as Eq. 9,
            or any kind of `paths.KINDS`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if `shift` is outside (0, 1), or as `contrast`.

    NFE: +1 inside the window.
    Source: arXiv:2412.05827, Eq. 9; read against maple-research-lab/Self-Guidance
        @843bda7, pipelines of SD3 and FLUX (weight 3, shift 0.01). The paper studies
        three shifts: a constant one (0.01; the best of its Fig. 9 is 0.03), one linear
        in time, delta(t) = t / sigma (`dynamic` with shift = 1 / sigma), and that to
        the step before (`sg_prev`).
    Differs from the source: the shifted call is made for the conditional branch only,
        which gives the same numbers for fewer evaluations. The dynamic shift is not in
        the authors' code, and the paper's sigma is not given. Their pipelines of SD,
        SD3, FLUX and CogVideoX agree with this; in that of Mochi, whose schedule is
        reversed, timestep + 10 is less noisy: the opposite of the paper.
    """
    shift = static_number("sg", "shift", shift)
    if not 0 < shift < 1:
        raise InputError(
            f"sg: need 0 < shift < 1 in noise time, got shift={shift!r}. "
            "10 of 1000 timesteps are 0.01."
        )
    check_named_space("sg", space)
    time = Shift(proportion=shift) if dynamic else Shift(amount=shift)
    away = Branch(time=time)
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, space=space, name="sg")


class SGPrevState(NamedTuple):
    """The memory of `sg_prev`."""

    previous: Array  # [B, *D] raw conditional prediction of the step before, in `space`
    ready: Array  # [] bool; False until one step has been seen


@pytree("weight")
class SGPrev(Transform):
    """See `sg_prev`."""

    weight: Schedule
    space: str = NATIVE

    name = "sg_prev"

    def init(self, x: Array) -> SGPrevState:
        """An empty memory for states like `x` [B, *D]."""
        return SGPrevState(jnp.zeros_like(x), jnp.zeros((), bool))

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def apply(
        self, guided: Guided, state: SGPrevState, here: View, *, live: bool
    ) -> tuple[Guided, SGPrevState]:
        """Adds the difference to the step before; remembers this one in any case."""
        weight = self.weight.number
        return away_from_previous(guided, state, here, weight, self.space, live=live)


def away_from_previous(
    guided: Guided,
    state: SGPrevState,
    here: View,
    weight: Array,
    space: str,
    *,
    live: bool,
) -> tuple[Guided, SGPrevState]:
    """Adds `weight` times the difference to the step before; remembers this step."""
    raw = here.read(RAW, space)
    if live:
        # The first step has no previous one, only the zeros of an empty memory.
        known = state.ready & ~here.step.restart
        weight = jnp.where(known, weight, jnp.zeros_like(weight))
        difference = raw - state.previous.astype(raw.dtype)
        guided = guided.plus(weight, here.to_native(difference, space))
    memory = raw.astype(state.previous.dtype)
    return guided, SGPrevState(memory, jnp.ones((), bool))


def sg_prev(
    weight: Weight, *, t_lo: float = 0.0, t_hi: float = 0.5, space: str = NATIVE
) -> SGPrev:
    """Self-Guidance against the previous step (SG-prev); costs no evaluation.

        guided + weight(t) * (raw_t - raw_previous)

    `raw_previous` is the unguided conditional prediction of the step before; it is
    recorded at every step, also outside the window. The effect depends on the step
    size; with uniform Euler steps and weight 1/2 this is the Adams-Bashforth-2 solver.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; the default is the authors'
            timesteps below 500 for flow models. On a DDPM table, where timestep i is
            t = (i + 1) / 1000, theirs is `t_hi=0.501`: 499 is t = 0.5, and guided.
        space: as in `sg`.

    Returns:
        A transform whose state is one array like x [B, *D] and one bool [].

    Raises:
        InputError: if `weight` is not finite, the space unknown or the window empty.

    NFE: +0. Memory: one copy of x.
    Source: arXiv:2412.05827, Eq. 10; read against maple-research-lab/Self-Guidance
        @843bda7 (weight 3, active where the timestep is below 500 of 1000).
    Differs from the source: the window is in noise time, and may be a schedule. In the
        authors' pipeline for Mochi time runs the other way, see `sg`.

    >>> sg_prev(3.0).live(0.5), sg_prev(3.0).live(0.49)
    (False, True)
    """
    check_number("sg_prev", "weight", weight)
    check_named_space("sg_prev", space)
    return SGPrev(schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0), space)


class AB2State(NamedTuple):
    """The memory of `ab2`."""

    memory: SGPrevState
    t: Array  # [B] noise time of the step before


@pytree("weight")
class AB2(Transform):
    """See `ab2`."""

    weight: Schedule
    space: str = "velocity"

    name = "ab2"

    def init(self, x: Array) -> AB2State:
        """An empty memory for states like `x` [B, *D]."""
        empty = SGPrevState(jnp.zeros_like(x), jnp.zeros((), bool))
        return AB2State(empty, jnp.zeros(len(x)))

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def apply(
        self, guided: Guided, state: AB2State, here: View, *, live: bool
    ) -> tuple[Guided, AB2State]:
        """`sg_prev` with the weight that follows from the lengths of two steps."""
        step = here.step
        t = jnp.broadcast_to(step.node.t, (len(step.x),)).astype(state.t.dtype)
        length = before = jnp.ones_like(t)
        if step.next_node is not None:
            length, before = t - step.next_node.t.astype(t.dtype), state.t - t
        # Two predictions at one time have no slope between them: no division by 0.
        share = length / jnp.where(before == 0, 1.0, 2 * before)
        weight = jnp.where(before == 0, 0.0, self.weight.number * share)
        guided, memory = away_from_previous(
            guided, state.memory, here, weight, self.space, live=live
        )
        return guided, AB2State(memory, t)


def ab2(weight: Weight = 1.0, *, t_lo: float = 0.0, t_hi: float = 1.0) -> AB2:
    """Adams-Bashforth of order 2 as a transform: the control experiment of SG-prev.

        guided + weight(t) * h_n / (2 h_{n-1}) * (raw_n - raw_{n-1})

    h_n is the length of this step and h_{n-1} that of the one before; predictions are
    velocities. With Euler, no other transform and weight 1 it is the solver AB2 on any
    grid; on a uniform grid it is `sg_prev(0.5, t_hi=1.0)`. What SG-prev gains beyond
    this one is guidance, the rest is solver order.

    Args:
        weight: 0 is Euler, 1 AB2; number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; Euler outside.

    Returns:
        A transform whose state is one array like x [B, *D], times [B] and one bool [].

    Raises:
        InputError: if `weight` is not finite or the window is empty.

    NFE: +0. Memory: one copy of x.
    Source: the textbook solver (Bashforth and Adams 1883); that SG-prev (Eq. 10 of
        arXiv:2412.05827) is of its form is shown by the algebra and measured in tests.
    Differs from the source: where the sampler does not say when the step ends, steps
        are taken to be equal. The second stage of a two-stage sampler is left alone.
    """
    check_number("ab2", "weight", weight)
    return AB2(schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0))
