"""Direction maps on whole samples: momentum, norms, projections, angles.

A map changes the difference of a contrast before it is weighted, for any contrast:

    contrast(2.0, Branch(network="weak"), neutral=1, space="denoised",
             maps=(momentum(-0.5), clip_norm(5.0), project(0.0)))

Maps run from left to right; norms, inner products and angles are per sample, over all
other axes, in float32 or wider. None of them is invariant to the prediction space, so
the contrast must name one. Numbers are schedules, as everywhere.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._axes import Axes, check_axes, norm, sample_axes
from jaxguide.guidance._base import Branch
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import (
    DirectionMap,
    Sides,
    Weight,
    per_sample,
    to_columns,
)
from jaxguide.guidance._numbers import check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.paths import Array, widen


class MomentumState(NamedTuple):
    """The memory of `momentum`."""

    average: Array  # [B, *D] float32 or wider


@pytree("beta")
class Momentum(DirectionMap):
    """See `momentum`."""

    beta: Schedule

    def init(self, x: Array) -> MomentumState:
        """An empty average for states like `x` [B, *D]."""
        return MomentumState(jnp.zeros_like(widen(x)))

    def apply(
        self, difference: Array, sides: Sides, state: MomentumState
    ) -> tuple[Array, MomentumState]:
        """The running average with this difference in it."""
        # A `where`, since a restart is known only at run time. The average is float32
        # or wider, since bfloat16 would round small terms away.
        empty = jnp.zeros_like(state.average)
        before = jnp.where(sides.here.step.restart, empty, state.average)
        before = before.astype(difference.dtype)
        moved = difference + to_columns(self.beta.number, difference) * before
        return moved, MomentumState(moved.astype(state.average.dtype))


def momentum(beta: Weight) -> Momentum:
    """`average = difference + beta * average`; below 0 it takes out what repeats.

    Forgets at a restart; does not move in steps in which the contrast is off.

    Raises:
        InputError: if `beta` is not finite.
    """
    check_number("momentum", "beta", beta)
    return Momentum(schedules.constant(beta))


@pytree("radius")
class ClipNorm(DirectionMap):
    """See `clip_norm`."""

    radius: Schedule
    axes: tuple[int, ...] | None = None

    def map(self, difference: Array, sides: Sides) -> Array:
        """Shortens a difference that is longer than the radius."""
        del sides
        size = norm(difference, self.axes)
        radius = to_columns(self.radius.number, difference)
        share = jnp.where(size > radius, radius / jnp.where(size > 0, size, 1.0), 1.0)
        return difference * share


def clip_norm(radius: Weight, *, axes: Axes = None) -> ClipNorm:
    """`difference * min(1, radius / |difference|)`.

    Args:
        radius: largest length, at least 0.
        axes: axes of x [B, *D] that a length is taken over; None for all but the first.

    Raises:
        InputError: if `radius` is negative or not finite, or `axes` has the first.
    """
    check_number("clip_norm", "radius", radius, low=0)
    return ClipNorm(schedules.constant(radius), check_axes("clip_norm", axes))


@pytree("parallel")
class Project(DirectionMap):
    """See `project`."""

    parallel: Schedule
    about: tuple[Branch, ...] = ()
    axes: tuple[int, ...] | None = None

    def branches(self) -> tuple[Branch, ...]:
        """The ends of the axis."""
        return self.about

    def map(self, difference: Array, sides: Sides) -> Array:
        """Weighs the part of the difference along the axis."""
        axis = sides.toward
        if self.about:
            ends = [sides.here.read(b, sides.space) for b in self.about]
            axis = ends[0].astype(difference.dtype)
            axis = axis if len(ends) == 1 else axis - ends[1].astype(difference.dtype)
        along = parallel_part(difference, axis, self.axes)
        return difference - (1 - to_columns(self.parallel.number, along)) * along


def project(
    parallel: Weight = 0.0,
    *,
    about: Branch | tuple[Branch, Branch] | None = None,
    axes: Axes = None,
) -> Project:
    """The part perpendicular to an axis, and `parallel` times the part along it.

    Args:
        parallel: 0 leaves nothing of the part along the axis, 1 all of it.
        about: the axis: a branch's prediction, or the difference of two; None for the
            prediction that the contrast pushes towards. `perp_neg` takes (RAW, NULL).
        axes: axes of x [B, *D] that inner products are taken over; None for all but
            the first.

    Raises:
        InputError: if `parallel` is not finite, `about` is neither one branch nor two,
            or `axes` has the first.
    """
    check_number("project", "parallel", parallel)
    if about is None or isinstance(about, Branch):
        about_ = () if about is None else (about,)
    else:
        about_ = tuple(about)
        if len(about_) != 2:
            raise InputError(f"project: need 1 or 2 branches, got about={about!r}.")
    return Project(schedules.constant(parallel), about_, check_axes("project", axes))


@pytree("power")
class NormPower(DirectionMap):
    """See `norm_power`."""

    power: Schedule

    def map(self, difference: Array, sides: Sides) -> Array:
        """Divides by a power of the length; nothing stays nothing."""
        del sides
        size, power = norm(difference), to_columns(self.power.number, difference)
        safe = jnp.where(size > 0, size, 1.0)
        return difference * safe ** (-power)


def norm_power(power: Weight) -> NormPower:
    """`difference / |difference|^power`: 0 as it is, 1 unit length.

    Raises:
        InputError: if `power` is not finite.
    """
    check_number("norm_power", "power", power)
    return NormPower(schedules.constant(power))


@pytree()
class OptScale(DirectionMap):
    """See `opt_scale`."""

    def map(self, difference: Array, sides: Sides) -> Array:
        """Adds what the scaled reference is short of."""
        size = per_sample(jnp.sum, sides.away, sides.away)
        best = per_sample(jnp.sum, sides.toward, sides.away) / (size + 1e-8)
        return difference + (1 - best) * sides.away


def opt_scale() -> OptScale:
    """`toward - s away` with `s = <toward, away> / (|away|^2 + 1e-8)` (CFG-Zero*).

    `s away` is the best approximation of `toward` by a multiple of `away`.
    """
    return OptScale()


@pytree()
class Tangential(DirectionMap):
    """See `tangential`."""

    def map(self, difference: Array, sides: Sides) -> Array:
        """Adds what the damped reference is short of."""
        toward, away = sides.toward, sides.away
        # The top right singular vector is cos(angle) toward + sin(angle) away, up to
        # its length, with (cos, sin) the top eigenvector of the 2 x 2 Gram matrix
        # [[a, b], [b, c]]: tan(2 angle) = 2 b / (a - c). An SVD of the rows would give
        # the same, but its gradient is not finite where two singular values agree.
        gap = per_sample(jnp.sum, toward, toward) - per_sample(jnp.sum, away, away)
        angle = _angle(2 * per_sample(jnp.sum, toward, away), gap) / 2
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # <away, v> is the singular value times sin, and v has a division by it: both
        # cancel, so that a singular value of 0 is harmless.
        damped = sin * (cos * toward + sin * away)
        return difference + (away - damped)


def tangential() -> Tangential:
    """`toward - <away, v> v`, v the top right singular vector of [toward; away] (TCFG).

    Takes out of the reference what the two sides do not share.
    """
    return Tangential()


@pytree("strength")
class Damp(DirectionMap):
    """See `damp`."""

    strength: Schedule

    def map(self, difference: Array, sides: Sides) -> Array:
        """Shrinks a difference that is large beside the reference."""
        size = norm(sides.away)
        ratio = norm(difference) / jnp.where(size > 0, size, 1.0)
        return difference * jnp.exp(-to_columns(self.strength.number, ratio) * ratio)


def damp(strength: Weight) -> Damp:
    """`difference * exp(-strength |difference| / |away|)` (MAMBO-G).

    Raises:
        InputError: if `strength` is negative or not finite.
    """
    check_number("damp", "strength", strength, low=0)
    return Damp(schedules.constant(strength))


@pytree()
class Rotate(DirectionMap):
    """See `rotate`."""

    limit: float

    def map(self, difference: Array, sides: Sides) -> Array:
        """What, times (scale - 1), takes `toward` to its rotated self."""
        del difference
        toward, away = sides.toward, sides.away
        across = toward - parallel_part(toward, away)
        beside = per_sample(jnp.sum, toward, away)
        height, length = norm(across), norm(toward)
        # Not arccos of the cosine, which loses small angles to rounding and has an
        # infinite derivative at 0.
        angle = _angle(height * norm(away), beside)
        excess = to_columns(sides.weight, angle) - 1
        wide = excess * angle > self.limit
        rate = jnp.where(wide, self.limit / jnp.where(wide, excess, 1.0), angle)
        turn = rate * excess
        # The contrast multiplies by `excess` again, so it is divided out here:
        # sin(turn) / excess and (1 - cos(turn)) / excess, finite where excess is 0.
        sin = rate * jnp.sinc(turn / math.pi)
        cos = rate * jnp.sin(turn / 2) * jnp.sinc(turn / 2 / math.pi)
        stretch = jnp.where(height > 0, length / jnp.where(height > 0, height, 1.0), 0)
        return sin * stretch * across - cos * toward


def rotate(limit: float = math.pi / 3) -> Rotate:
    """Turns `toward` away from `away` by `(scale - 1)` times their angle (ADG).

    Stands first: it replaces the difference, and knows its contrast's scale.

    Args:
        limit: the largest turn, in radians.

    Raises:
        InputError: if `limit` is not a positive number.
    """
    return Rotate(static_number("rotate", "limit", limit, above=0))


@pytree("maps", "acts")
class Within(DirectionMap):
    """See `within`."""

    maps: tuple[DirectionMap, ...]
    acts: Schedule

    def init(self, x: Array) -> tuple[Any, ...]:
        """The states of the maps."""
        return tuple(one.init(x) for one in self.maps)

    def branches(self) -> tuple[Branch, ...]:
        """What the maps read."""
        return tuple(branch for one in self.maps for branch in one.branches())

    def apply(self, difference: Array, sides: Sides, state: Any) -> tuple[Array, Any]:
        """The mapped difference inside the window; the states move anyway."""
        # The maps always run: momentum has to know the steps before its window.
        mapped, states = difference, []
        state = state or ((),) * len(self.maps)  # a contrast without any state has ()
        for one, old in zip(self.maps, state, strict=True):
            mapped, new = one.apply(mapped, sides, old)
            states.append(new)
        inside = to_columns(self.acts.number, difference) != 0
        return jnp.where(inside, mapped, difference), tuple(states)


def within(t_lo: float, t_hi: float, *maps: DirectionMap) -> Within:
    """Maps that change the difference in `[t_lo, t_hi)` only, but always remember.

    Raises:
        InputError: if the window is empty.
    """
    return Within(maps, schedules.window(1.0, t_lo=t_lo, t_hi=t_hi, outside=0.0))


def _angle(opposite: Array, adjacent: Array) -> Array:
    """`arctan2`, with a finite gradient where both are 0."""
    nowhere = (opposite == 0) & (adjacent == 0)
    return jnp.arctan2(opposite, jnp.where(nowhere, 1.0, adjacent))


def parallel_part(
    value: Array, axis: Array, axes: tuple[int, ...] | None = None
) -> Array:
    """The part of `value` along `axis`, by default per sample; 0 where the axis is
    0."""
    axes = sample_axes(value, axes)
    size = jnp.sum(axis * axis, axis=axes, keepdims=True)
    share = jnp.sum(value * axis, axis=axes, keepdims=True)
    share = share / jnp.where(size > 0, size, 1.0)
    return jnp.where(size > 0, share, 0.0) * axis
