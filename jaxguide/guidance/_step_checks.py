"""What a step may be made of: states, times, conditions and numbers that fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide.errors import InputError
from jaxguide.guidance._checks import shown
from jaxguide.guidance._schedule import is_schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array

ONE_SAMPLE = "For single samples, as under jax.vmap, use guide(..., batch_ndim=0)."


def check_state(x: Any) -> None:
    """Refuses what is no state [B, *D] of floating-point numbers.

    Raises:
        InputError: so does every function here.
    """
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        found = f"x={shown(x)}" if dtype is None else f"x.dtype={dtype}"
        raise InputError(
            f"guidance: need x [B, *D] of floating-point numbers, got {found}. "
            "Convert it, as by jnp.asarray(x, jnp.float32)."
        )
    if not np.ndim(x):
        raise InputError(
            f"guidance: need x [B, *D], got x.shape={x.shape}. {ONE_SAMPLE}"
        )


def check_rows(name: str, cond: Any, x: Array) -> None:
    """Refuses a condition whose leaves do not have one row per sample of x."""
    for leaf in jax.tree.leaves(cond):
        shape = np.shape(leaf)
        if isinstance(leaf, str | bytes) or shape[:1] == x.shape[:1]:
            continue
        raise InputError(
            f"guidance: need one row per sample in the condition {name!r}, leaves "
            f"[B, ...], got shape {shape} for x.shape={x.shape}. {ONE_SAMPLE}"
        )


def check_numbers(part: Transform, x: Array) -> None:
    """Refuses a schedule's number that is neither [] nor one per sample of x."""
    leaves = jax.tree_util.tree_leaves_with_path(part, is_leaf=is_schedule)
    for path, leaf in leaves:
        # The numbers that a change reads inside the network are its own affair.
        own = any(getattr(key, "name", None) == "numbers" for key in path)
        if own or not is_schedule(leaf):
            continue
        if (shape := np.shape(leaf.value)) not in ((), x.shape[:1]):
            name = type(part).__name__ if part.name == Transform.name else part.name
            raise InputError(
                f"{name}: need one number, or one per sample [B], got shape {shape} "
                f"for x.shape={x.shape}. Use jax.vmap to run several numbers."
            )


def check_time(argument: str, t: Any, x: Array) -> Any:
    """A noise time [] or [B]; a Python integer as a float. Traced ones cannot be
    judged beyond their dtype and shape."""
    if isinstance(t, bool | str | bytes) or t is None:
        raise InputError(f"guide: need a time in [0, 1] for {argument}, got {t!r}.")
    t = float(t) if isinstance(t, int) else t
    t = np.asarray(t) if isinstance(t, list | tuple) else t
    dtype = np.asarray(t).dtype if not hasattr(t, "dtype") else t.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"guide: need {argument} as a floating-point time in [0, 1], got {dtype} "
            f"{argument}={shown(t)}. Divide timesteps by their number, such as 1000."
        )
    if np.shape(t) not in ((), x.shape[:1]):
        raise InputError(
            f"guide: need {argument} of shape [] or [B], got shape {np.shape(t)} for "
            f"x.shape={x.shape}. {ONE_SAMPLE}"
        )
    if not isinstance(t, Tracer):
        _check_known(argument, np.asarray(t, np.float64))
    return t


def _check_known(argument: str, t: np.ndarray) -> None:
    # Rounding may put the last time of a grid just outside.
    bad = ~((t >= -1e-6) & (t <= 1 + 1e-6))
    if not bad.any():
        return
    found = float(t[bad][0])
    what = "1 is noise and 0 is data."
    if 1 < found < np.inf:
        number = 10 ** max(3, int(np.ceil(np.log10(found))))
        what = f"Divide by {number}: timesteps by their number."
    raise InputError(
        f"guide: need a time in [0, 1] for {argument}, got {argument}={found:g}. {what}"
    )
