"""Spaces and numbers of transforms: traced, checked, and added without a trace at 0."""

import dataclasses
from collections.abc import Callable
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._checks import check_value
from jaxguide.guidance._schedule import is_schedule
from jaxguide.paths import Array

# Space of a transform that gives the same result in every space.
ANY = "any"
# Space of the raw network output, whatever the network predicts.
NATIVE = "native"
SPACES = (ANY, NATIVE, *paths.KINDS)


@dataclass_transform(frozen_default=True)
def pytree(*data: str) -> Callable[[type], type]:
    """Class decorator: a frozen dataclass whose fields `data` are traced, all else
    static."""

    def decorate(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        static = [name for name in names if name not in data]
        return jax.tree_util.register_dataclass(cls, list(data), static)

    return decorate


@jax.custom_jvp
def add_scaled(base: Array, weight: Array, difference: Array) -> Array:
    """`base + weight * difference`, bitwise `base` where `weight` is 0; dtype kept.

    `weight` [] or [B] is broadcast; its gradient at 0 is `difference`, as it should be.
    """
    weight = paths.expand(weight, base)
    moved = base + weight * difference.astype(base.dtype)
    # Plain addition is not enough: 0 * inf is NaN, and -0.0 + 0 is +0.0.
    return jnp.where(weight == 0, base, moved)


# The rule of plain addition, written out: at weight 0 the `where` above takes `base`,
# which does not depend on the weight, so its own gradient would be 0 there and a scale
# could not be trained away from its neutral value.
@add_scaled.defjvp
def _add_scaled_jvp(primals, tangents):
    base, weight, difference = primals
    dbase, dweight, ddifference = tangents
    change = paths.expand(dweight, base) * difference.astype(base.dtype)
    change += paths.expand(weight, base) * ddifference.astype(base.dtype)
    return add_scaled(base, weight, difference), dbase + change


def check_number(
    name: str,
    argument: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    hint: str = "",
) -> None:
    """Raises InputError for a weight (number, array, function, `Schedule`) with a known
    number that is not finite or out of range, see `check_value`.

    What a function returns is judged where it is called, see `Schedule`.
    """
    if is_schedule(value):
        value = value.value
    elif callable(value):
        return
    check_value(name, argument, value, low, high, above=above, hint=hint)


def check_space(name: str, space: str) -> None:
    """Raises InputError unless `space` is one of `SPACES`."""
    if space not in SPACES:
        raise InputError(f"{name}: need space in {SPACES}, got space={space!r}.")


def check_named_space(name: str, space: str) -> None:
    """Raises InputError unless `space` names one; for what is not invariant."""
    check_space(name, space)
    if space == ANY:
        raise InputError(
            f"{name}: need a space other than {ANY!r}, got space={space!r}. The method "
            "is not the same in every space."
        )
