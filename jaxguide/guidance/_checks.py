"""What a number may be: the one place where numbers of transforms are judged.

Two kinds. A *value* (scale, weight, radius, ...) is a leaf of its transform: a number
or an array, perhaps traced; what is traced, or lies on other hosts, cannot be judged. A
*static* number (a window's edge, a shift, a blur) decides the program and is known.
"""

from inspect import isroutine
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide.errors import InputError


def check_value(
    name: str,
    argument: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    hint: str = "",
) -> None:
    """Refuses what is no finite real number or array of them, in `[low, high]` and
    above `above`; `hint` ends the message.

    Raises:
        InputError: beginning with `name` and naming `argument`.
    """
    known = _known(name, argument, value)
    if known is None:
        return
    # As wide as jax computes here: 1e39 is infinite in float32.
    most = float(jnp.finfo(jax.dtypes.canonicalize_dtype(np.float64)).max)
    for bad, need in (
        (~(np.abs(known) <= most), f"a finite {argument}"),
        (low is not None and known < low, f"{argument} >= {low}"),
        (above is not None and known <= above, f"{argument} > {above}"),
        (high is not None and known > high, f"{argument} <= {high}"),
    ):
        if np.any(bad):
            found = _first(np.asarray(bad), known, argument)
            raise InputError(f"{name}: need {need}, got {found}.{hint and ' ' + hint}")


def static_number(
    name: str,
    argument: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    infinite: bool = False,
) -> float:
    """`value` as a float, if it is one finite number known before tracing.

    `infinite` allows positive infinity too.

    Raises:
        InputError: as `check_value`; also for a traced number or an array.
    """
    if isinstance(value, Tracer):
        raise InputError(
            f"{name}: need {argument} known before tracing, got {argument}={value!r}. "
            "It is static: give a Python number, or make this outside jit and vmap."
        )
    if infinite and not np.ndim(value) and value == np.inf:
        return np.inf
    check_value(name, argument, value, low, high, above=above)
    if np.ndim(value):
        raise InputError(
            f"{name}: need one number for {argument}, got shape {np.shape(value)}."
        )
    return float(value)


def is_whole(value: Any) -> bool:
    """Whether it is an integer; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Its `repr` in one line of at most 80 characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 80 else line[:77] + "..."


def uncalled(value: Any) -> str | None:
    """The name of a function of jaxguide that was given without its call."""
    ours = getattr(value, "__module__", None) or ""
    if isinstance(value, type) or isroutine(value):
        return value.__name__ if ours.startswith("jaxguide.") else None
    return None


def _known(name: str, argument: str, value: Any) -> np.ndarray | None:
    """The numbers in float64, or None where they cannot be seen."""
    if isinstance(value, list | tuple) and _holds_tracer(value):
        value = jnp.asarray(value)
    array: Any = value if hasattr(value, "dtype") else _array(value)
    if not _is_real(array):
        raise InputError(f"{name}: need a number for {argument}, got {shown(value)}.")
    if isinstance(array, np.ndarray | np.generic):
        return np.asarray(array, np.float64)
    # A concrete array of jax can be seen, unless parts of it lie on other hosts.
    seen = isinstance(array, jax.Array) and not isinstance(array, Tracer)
    if not seen or not array.is_fully_addressable:
        return None
    return np.asarray(array).astype(np.float64)


def _array(value: Any) -> Any:
    try:
        return np.asarray(value)
    except ValueError:  # a ragged list
        return None


def _holds_tracer(value: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def _is_real(array: Any) -> bool:
    """Whether it holds integers or real numbers; not bool, complex, objects or keys."""
    try:
        dtype = jnp.dtype(array.dtype)
    except (AttributeError, TypeError):
        return False
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _first(bad: np.ndarray, values: np.ndarray, argument: str) -> str:
    """The first bad number, as `scale=nan` or `scale[2]=nan`."""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{argument}{where}={values[place].item()!r}"
