"""What the arguments of samplers, grids and solvers may be."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.paths import as_number


def check_flag(name: str, **given: Any) -> None:
    """Raises InputError unless the one argument given is True or False."""
    ((what, value),) = given.items()
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}: need {what} True or False, got {what}={value!r}.")


def check_tolerances(name: str, rtol: Any, atol: Any) -> None:
    """Raises InputError unless an adaptive solver can meet them; traced ones pass."""
    for what, value in (("rtol", rtol), ("atol", atol)):
        if not isinstance(value, Tracer) and not 0 <= as_number(value) < np.inf:
            raise InputError(
                f"{name}: need a finite {what} >= 0, got {what}={value!r}. "
                "SiT's are rtol=1e-3, atol=1e-6."
            )
    if not isinstance(rtol, Tracer | np.ndarray) and rtol == 0 and atol == 0:
        raise InputError(
            f"{name}: need rtol or atol above 0, got rtol={rtol!r}, atol={atol!r}. "
            "No step has an error of 0; SiT's are rtol=1e-3, atol=1e-6."
        )


def check_determined(
    name: str, kind: str, path: paths.Path, times: np.ndarray, *, inverse: bool = False
) -> None:
    """Refuses noise times at which a network of `kind` does not give the pair.

    Args:
        name: of the function that was called.
        kind: of the main network.
        path: its noise path.
        times: noise times [N] at which it is evaluated.
        inverse: whether the walk starts at clean data, where a score leaves no noise.

    Raises:
        InputError: that names the first such time.
    """
    with np.errstate(all="ignore"):
        node = path.node(np.asarray(times, np.float64))
    data, noise = paths.undetermined(kind, node)
    if inverse and kind == "score":
        noise = noise | (np.abs(node.sigma) < paths.NOTHING)
    for lost, what, symbol, fix in (
        (data, "data", "alpha", "Start the grid below 1"),
        (noise, "noise", "sigma", "End the grid above 0"),
    ):
        if np.any(lost):
            t = float(np.asarray(times)[np.argmax(lost)])
            raise InputError(
                f"{name}: need {symbol} > 0 on the grid for a {kind} network, whose "
                f"output does not determine the {what} at {symbol} = 0; got t={t!r} in "
                f"the grid on {path!r}. {fix}."
            )


def check_finite(sampler: Any, terms: Any, path: paths.Path, grid: np.ndarray) -> Any:
    """`terms`, a pytree of host arrays [N], if all are finite in float32.

    Raises:
        InputError: that names the first step where one is not.
    """
    limit = np.finfo(np.float32).max
    bad = np.zeros(len(grid) - 1, bool)
    for term in jax.tree.leaves(terms):
        bad |= ~(np.abs(term) <= limit)
    if np.any(bad):
        at = int(np.argmax(bad))
        raise InputError(
            "sampler: need finite coefficients in every step, got none from "
            f"t={float(grid[at])!r} to {float(grid[at + 1])!r} on {path!r} with "
            f"{sampler!r}. Keep the grid inside (0, 1)."
        )
    return terms
