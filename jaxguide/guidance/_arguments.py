"""Arguments of the right kind, for all functions that take a network and a guidance."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance._checks import shown
from jaxguide.guidance._network import Network


def check_function(name: str, argument: str, value: Any) -> None:
    """Refuses what is no function `(x, t, cond) -> prediction`.

    Raises:
        InputError: so does every function here; it begins with `name`.
    """
    if isinstance(value, Network):
        raise InputError(
            f"{name}: need a function (x, t, cond) for {argument}, got a Network. Pass "
            f"{argument}=network.predict and its kind= and path=, or use generate."
        )
    if not callable(value) or isinstance(value, type):
        raise InputError(
            f"{name}: need a function (x, t, cond) for {argument}, got {shown(value)}."
        )


def check_network(name: str, argument: str, value: Any) -> None:
    """Refuses what is no `Network`, or has nothing to call."""
    if not isinstance(value, Network):
        raise InputError(
            f"{name}: need a Network for {argument}, got {shown(value)}. Pass "
            f"{argument}=jg.Network(predict, kind=...) for a function (x, t, cond)."
        )
    if not callable(value.predict):
        raise InputError(
            f"{name}: need a function as predict of {argument}, got "
            f"{shown(value.predict)}."
        )


def check_mapping(name: str, argument: str, value: Any, example: str) -> None:
    """Refuses what is no dict of names, or None."""
    if value is not None and not isinstance(value, Mapping):
        raise InputError(
            f"{name}: need a dict by name for {argument}, got {shown(value)}. Pass "
            f"{argument}={{{example!r}: ...}}."
        )


def check_key(name: str, argument: str, key: Any, example: str) -> None:
    """Refuses what is no PRNG key, or None."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and np.ndim(key) > 0
    if key is not None and not typed and not raw:
        raise InputError(
            f"{name}: need a PRNG key for {argument}, got {argument}={shown(key)}. "
            f"Pass {argument}={example}."
        )
