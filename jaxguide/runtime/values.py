"""Plain values in configs: held against the types that annotations allow."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from jaxguide.errors import InputError, NonFiniteError

# What a config can spell, in words and as an example; any other value (an array, a
# function) is left to the callee.
WORDS = {
    bool: ("True or False", "True"),
    int: ("an integer", "2"),
    float: ("a number", "1.5"),
    str: ("a string", "'text'"),
    tuple: ("a tuple", "(0, 1)"),
    list: ("a list", "[0, 1]"),
    dict: ("a dict", "{}"),
    types.NoneType: ("None", "None"),
}
_NUMBERS = {np.bool_: bool, np.integer: int, np.floating: float}
# What JAX, numpy and files hold.
_MOST = 2**63 - 1


def plain(title: str, name: str, value: Any, hint: Any) -> Any:
    """`value`; a list becomes the tuple, a whole number the float that the hint names.

    Raises:
        InputError: if it is a plain value of none of the plain types in `hint`.
    """
    for kind, python in _NUMBERS.items():
        value = python(value) if isinstance(value, kind) else value
    allowed = _allowed(hint)
    if type(value) is list and tuple in allowed and list not in allowed:
        value = tuple(value)
    kind = type(value)
    kind = float if kind is int and int not in allowed and float in allowed else kind
    if allowed and kind in WORDS and kind not in allowed:
        _refuse(title, name, value, allowed)
    inner = typing.get_args(allowed.get(kind, Any))
    if kind is tuple and inner[1:] == (...,):
        return tuple(plain(title, name, item, inner[0]) for item in value)
    return value


def field(title: str, name: str, value: Any, hint: Any) -> Any:
    """As `plain`, for a config: nothing but plain values, finite and not too large.

    Raises:
        InputError: if it is anything else.
    """
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):
            need = hint.__name__
            raise InputError(
                f"{title}: need a {need} for {name}, got {name}={_short(value)}. "
                f"Write {name}={need}(...)."
            )
        check(value, title, f"{name}.")
        return value
    value = plain(title, name, value, hint)
    allowed = _allowed(hint)
    kind = type(value)
    if kind not in allowed and not (kind is int and float in allowed):
        _refuse(title, name, value, allowed)
    if kind in (int, float):
        _check_number(title, name, value)
        return float(value) if kind not in allowed else value
    return _filled(title, name, value, typing.get_args(allowed[kind]))


def _filled(title: str, name: str, value: Any, inner: tuple) -> Any:
    """A list, tuple or dict whose items are held against the hints `inner`."""
    if isinstance(value, dict) and inner:
        items = value.items()
        keys = [field(title, f"a key of {name}", key, inner[0]) for key in value]
        held = [field(title, f"{name}[{key!r}]", one, inner[1]) for key, one in items]
        return dict(zip(keys, held, strict=True))
    if not isinstance(value, list | tuple) or not inner:
        return value
    alike = isinstance(value, list) or inner[1:] == (...,)
    hints = [inner[0]] * len(value) if alike else inner
    if len(hints) != len(value):
        raise InputError(
            f"{title}: need {len(hints)} values for {name}, got {name}={_short(value)}."
        )
    return type(value)(
        field(title, f"{name}[{index}]", one, hint)
        for index, (one, hint) in enumerate(zip(value, hints, strict=True))
    )


def number(default: Any, least: float, most: float = _MOST) -> Any:
    """A field of a config dataclass that holds a number in `[least, most]`."""
    return dataclasses.field(default=default, metadata={number: (least, most)})


def seed(default: int = 0) -> Any:
    """A field of a config dataclass that holds a seed; JAX tells 2^32 apart."""
    return number(default, 0, 2**32 - 1)


def check(config: Any, title: str = "config", prefix: str = "") -> None:
    """Checks every field of a config dataclass against its annotation and its range.

    Lists become tuples, and whole numbers floats, where the annotation says so.

    Args:
        config: a dataclass; its fields may be dataclasses.
        title: who speaks in the message.
        prefix: of the names in the message.

    Raises:
        InputError: if a value is of another type, not finite, or out of range.
    """
    hints = typing.get_type_hints(type(config))
    for one in dataclasses.fields(config):
        name = prefix + one.name
        value = field(title, name, getattr(config, one.name), hints[one.name])
        object.__setattr__(config, one.name, value)
        if number in one.metadata and value is not None:
            _check_range(title, name, value, *one.metadata[number])


def _check_range(
    title: str, name: str, value: float, least: float, most: float
) -> None:
    if least <= value <= most:
        return
    need = f"{name} >= {least}" if value < least else f"{name} <= {most}"
    raise InputError(f"{title}: need {need}, got {name}={value!r}.")


def _check_number(title: str, name: str, value: float) -> None:
    if not math.isfinite(value):
        raise NonFiniteError(
            f"{title}: need a finite number for {name}, got {name}={value!r}."
        )
    if abs(value) > _MOST and isinstance(value, int):
        raise InputError(
            f"{title}: need an integer of 64 bits for {name}, got {name}={value!r}."
        )


def _allowed(hint: Any) -> dict[type, Any]:
    """The plain types that a hint names, and what it says of each."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    kinds = {typing.get_origin(member) or member: member for member in members}
    kinds = {dict if kind is Mapping else kind: one for kind, one in kinds.items()}
    return {kind: member for kind, member in kinds.items() if kind in WORDS}


def takes_function(hint: Any) -> bool:
    """Whether a hint allows a function."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    return any((typing.get_origin(one) or one) is Callable for one in members)


def _refuse(title: str, name: str, value: Any, allowed: Mapping[type, Any]) -> NoReturn:
    wanted = " or ".join(WORDS[kind][0] for kind in allowed)
    example = WORDS[next(iter(allowed))][1]
    raise InputError(
        f"{title}: need {wanted} for {name}, got {name}={_short(value)}. "
        f"Write {name}={example}."
    )


def _short(value: Any) -> str:
    """At most eighty characters of the value; of what has no short text, its type."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"
