"""Transforms of the form `guided + weight(t) * map(a - b)`: branches and a weight."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._arguments import check_mapping
from jaxguide.guidance._axes import sample_axes
from jaxguide.guidance._base import NULL, RAW, Branch, Guided, View
from jaxguide.guidance._checks import shown, static_number
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import ANY, check_number, check_space, pytree
from jaxguide.guidance._schedule import Schedule, Weight as Weight
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, ArrayLike, expand, widen

# What a scale multiplies, for maps that change the difference (methods differ in it).
BASES = ("toward", "away", "full")


class Sides(NamedTuple):
    """What a direction map sees of its contrast; all in the contrast's space."""

    toward: Array  # [B, *D], float32 or wider
    away: Array  # [B, *D], the mean of the away branches
    weight: Array  # [] or [B], at this step
    here: View  # what the contrast sees: other branches, the step
    space: str  # of the contrast, to read further branches in


class DirectionMap:
    """Changes the difference of a contrast before it is weighted.

    Subclasses are frozen dataclasses registered as pytrees, like transforms; their
    schedules hold their numbers inside `apply`, which sees float32 (or wider) arrays.
    """

    def init(self, x: Array) -> Any:
        """State carried from step to step, a NamedTuple or (); `x` is [B, *D]."""
        del x
        return ()

    def branches(self) -> tuple[Branch, ...]:
        """What it reads besides the two sides."""
        return ()

    def apply(self, difference: Array, sides: Sides, state: Any) -> tuple[Array, Any]:
        """The changed difference [B, *D] and the next state."""
        return self.map(difference, sides), state

    def map(self, difference: Array, sides: Sides) -> Array:
        """The changed difference [B, *D], for a map without state."""
        raise NotImplementedError


class MapStates(NamedTuple):
    """The states of the maps of a contrast."""

    maps: tuple[Any, ...]


@pytree("weights", "maps", "numbers")
class Contrast(Transform):
    """`guided + prod_i (weights_i(t) - neutral_i) * maps(toward - mean(away))`.

    `space` is where the difference is taken; `ANY` for contrasts that do not depend
    on it (both branches at the same x and t, and no maps). `numbers` are schedules that
    the changes of the branches read: `here.part.numbers["std"].number`.
    """

    weights: tuple[Schedule, ...]
    away: tuple[Branch, ...]
    toward: Branch = RAW
    neutral: tuple[float, ...] = (0.0,)
    space: str = ANY
    name: str = "contrast"
    maps: tuple[DirectionMap, ...] = ()
    base: str = "toward"
    numbers: Mapping[str, Schedule] = dataclasses.field(default_factory=dict)

    def init(self, x: Array) -> Any:
        """The states of the maps, or () if none has one."""
        states = tuple(one.init(x) for one in self.maps)
        return MapStates(states) if jax.tree.leaves(states) else ()

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Both sides of the difference, and what the maps read."""
        del network
        read = (branch for one in self.maps for branch in one.branches())
        return (self.toward, *self.away, *read)

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """Each weight: where one is neutral the product is 0."""
        return tuple(zip(self.weights, self.neutral, strict=True))

    def live(self, t: float, index: int = 0) -> bool:
        """False where a weight is neutral or both sides are the same call."""
        if not super().live(t, index):
            return False
        # Equal sides have the difference 0: `sg` at t = 1, whose shift is clipped away.
        sides = {_at_time(self.name, one, t) for one in (self.toward, *self.away)}
        return len(sides) > 1

    def apply(
        self, guided: Guided, state: Any, here: View, *, live: bool
    ) -> tuple[Guided, Any]:
        """Adds the weighted difference."""
        if not live:
            return guided, state
        toward = here.read(self.toward, self.space)
        away = sum(here.read(branch, self.space) for branch in self.away[1:])
        away = (here.read(self.away[0], self.space) + away) / len(self.away)
        change, amount = toward - away, self._amount()
        if self.maps:
            plain = change
            weight = self.weights[0].number
            sides = Sides(widen(toward), widen(away), weight, here, self.space)
            change, state = self._map(sides, state)
            change = change.astype(plain.dtype)
            if self.base == "away":  # away + w d' = toward + (w - 1) d' + (d' - d)
                # Not where the weight is neutral, which must change no bit.
                acts = (amount != 0).astype(amount.dtype)
                guided = guided.plus(acts, here.to_native(change - plain, self.space))
        return guided.plus(amount, here.to_native(change, self.space)), state

    def _amount(self) -> Array:
        """What the difference is multiplied by, [] or [B]."""
        amount = self.weights[0].number - self.neutral[0]
        for one, neutral in zip(self.weights[1:], self.neutral[1:], strict=True):
            amount = amount * (one.number - neutral)
        return amount

    def _map(self, sides: Sides, state: Any) -> tuple[Array, Any]:
        """The difference through all maps."""
        change = sides.toward - sides.away
        states = []
        olds = state.maps if state else ((),) * len(self.maps)
        for one, old in zip(self.maps, olds, strict=True):
            change, new = one.apply(change, sides, old)
            states.append(new)
        return change, MapStates(tuple(states)) if state else ()


def per_sample(function: Callable, *values: Array) -> Array:
    """A reduction over all axes but the first, kept to broadcast: [B, 1, ...].

    `function` is such as `jnp.sum`; several values are multiplied first.
    """
    product = values[0]
    for value in values[1:]:
        product = product * value
    return function(product, axis=sample_axes(product), keepdims=True)


def to_columns(number: ArrayLike, like: Array) -> Array:
    """A number [] or [B] shaped and cast to multiply `like` [B, *D]."""
    return expand(jnp.asarray(number), like)


def _at_time(name: str, branch: Branch, t: float) -> Branch:
    """What the branch is at host time `t`: a shift that is clipped away is RAW.

    Raises:
        InputError: if the time that the network would be given is outside [0, 1].
    """
    if branch.time is None:
        return branch
    with jax.ensure_compile_time_eval():
        given = float(branch.time(t, t))
    if not -1e-6 <= given <= 1 + 1e-6:
        raise InputError(
            f"{name}: need a branch whose time is in [0, 1], got {given:g} at t={t:g}. "
            "Clip it, as by jnp.clip(..., 0.0, 1.0), or close the window there."
        )
    return dataclasses.replace(branch, time=None) if given == t else branch


def _check_branches(name: str, *branches: Any) -> None:
    """Raises InputError unless all are branches."""
    for one in branches:
        if not isinstance(one, Branch):
            raise InputError(
                f"{name}: need a Branch on both sides, got {shown(one)}. Write "
                "Branch(cond='name') for a condition."
            )


def contrast(
    weight: Weight | tuple[Weight, ...],
    away: Branch | tuple[Branch, ...],
    *,
    toward: Branch = RAW,
    neutral: float | tuple[float, ...] = 0.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = ANY,
    name: str = "contrast",
    maps: tuple[DirectionMap, ...] = (),
    base: str = "toward",
    numbers: Mapping[str, Weight] | None = None,
) -> Contrast:
    """`guided + (weight(t) - neutral) * maps(toward - mean(away))`.

    The building block of all linear methods, and the shortest way to a new one.

    Args:
        weight: dimensionless number, array [B], function of noise time, or `Schedule`.
            A tuple of them, with as many in `neutral`, is multiplied: the product of
            (weight_i - neutral_i), off where one factor is 0.
        away: branch or branches pushed away from; several are averaged.
        toward: branch pushed towards, by default the raw conditional prediction.
        neutral: the weight that switches the term off (1 for scales).
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the difference is taken, one of `SPACES`.
        name: for printing and error messages.
        maps: direction maps, applied to the difference from left to right.
        base: with maps, what d' = maps(d) is added to, for a scale: "toward" is
            `toward + (scale - 1) d'`, "away" is `away + scale d'`, "full" is
            `toward + scale d'` (then `neutral` is 0). They agree only where d' = d.
        numbers: further numbers, arrays or schedules that a `Change` of a branch reads
            as `here.part.numbers[name].number`: traced, so that a new value compiles
            nothing.

    Returns:
        A transform whose state is that of its maps.

    Raises:
        InputError: for a number that is not finite, an unknown space or base, or a
            bad window.

    NFE: +1 per distinct branch that is not the raw prediction.
    """
    weights = weight if isinstance(weight, tuple) else (weight,)
    neutrals = neutral if isinstance(neutral, tuple) else (neutral,) * len(weights)
    if len(weights) != len(neutrals) or not weights:
        raise InputError(
            f"{name}: need one neutral number for every weight, got weight={weight!r}, "
            f"neutral={neutral!r}."
        )
    for one, off in zip(weights, neutrals, strict=True):
        check_number(name, "weight" if off == 0 else "scale", one)
        static_number(name, "neutral", off)
    check_mapping(name, "numbers", numbers, "std")
    for key, one in (numbers or {}).items():
        check_number(name, f"numbers[{key!r}]", one)
    away, maps = away if isinstance(away, tuple) else (away,), _parts(name, maps)
    _check_branches(name, toward, *away)
    check_space(name, space)
    if base not in BASES:
        raise InputError(f"{name}: need base in {BASES}, got base={base!r}.")
    return Contrast(
        tuple(
            schedules.window(one, t_lo=t_lo, t_hi=t_hi, outside=off)
            for one, off in zip(weights, neutrals, strict=True)
        ),
        away,
        toward,
        neutrals,
        space,
        name,
        maps,
        base,
        {key: schedules.constant(one) for key, one in (numbers or {}).items()},
    )


def _parts(name: str, maps: Any) -> tuple[DirectionMap, ...]:
    """Direction maps as a tuple."""
    several = isinstance(maps, tuple | list)
    if not several or not all(isinstance(one, DirectionMap) for one in maps):
        raise InputError(f"{name}: need a tuple of direction maps, got {shown(maps)}.")
    return tuple(maps)


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
        InputError: if `scale` is not finite or the interval is empty.

    NFE: +1 inside the interval.
    Source: Ho and Salimans 2022, arXiv:2207.12598, Eq. 6; the interval:
        Kynkaanniemi et al. 2024, arXiv:2404.07724.
    Differs from the source: the paper's w is scale - 1.

    >>> cfg(1.5, t_lo=0.15, t_hi=0.95).live(0.95)
    False
    """
    return contrast(scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="cfg")
