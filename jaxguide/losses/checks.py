"""What the arguments of losses may be: numbers, shares, windows, a batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide import paths
from jaxguide.errors import InputError


def traced(value: Any) -> bool:
    """Whether the value is known only while the program runs."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))


def check_scales(owner: str, scales: tuple[float, float]) -> None:
    """Raises an InputError unless `scales` is a range of guidance scales."""
    low, high = _pair(scales)
    if not 1 <= low <= high < np.inf:
        raise InputError(
            f"{owner}: need finite 1 <= scales[0] <= scales[1], got scales={scales!r}. "
            "1 is unguided."
        )


def check_betas(owner: str, betas: tuple[float, float]) -> None:
    """Raises an InputError unless `betas` is a range inside [0, 1]."""
    low, high = _pair(betas)
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"{owner}: need 0 <= betas[0] <= betas[1] <= 1, got betas={betas!r}. "
            "1 / beta is the scale; (0, 1) is published."
        )


def _pair(values: Any) -> tuple[float, float]:
    """Two numbers; NaN, which is in no range, where there are not two."""
    two = isinstance(values, tuple | list | np.ndarray) and len(values) == 2
    low, high = values if two else (np.nan, np.nan)
    return paths.as_number(low), paths.as_number(high)


def check_share(owner: str, name: str, value: float) -> None:
    """Raises an InputError unless `value` is a probability."""
    if not 0 <= paths.as_number(value) <= 1:
        raise InputError(
            f"{owner}: need 0 <= {name} <= 1, got {name}={value!r}. 0.1 is common."
        )


def check_window(owner: str, t_lo: float, t_hi: float) -> None:
    """Raises an InputError unless [t_lo, t_hi) lies in [0, 1]."""
    if not 0 <= paths.as_number(t_lo) <= paths.as_number(t_hi) <= 1:
        raise InputError(
            f"{owner}: need 0 <= t_lo <= t_hi <= 1, got t_lo={t_lo!r}, t_hi={t_hi!r}. "
            "Noise times; timesteps of 1000 are divided by 1000."
        )


def check_not_negative(owner: str, name: str, value: float) -> None:
    """Raises an InputError unless `value` is a finite number >= 0; traced ones pass."""
    if not traced(value) and not 0 <= paths.as_number(value) < np.inf:
        raise InputError(
            f"{owner}: need a finite {name} >= 0, got {name}={value!r}. "
            "0 leaves it out."
        )


def check_batch(owner: str, batch: Any) -> None:
    """Raises an InputError unless `batch` is (x0 [B, *D], integer label [B])."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"{owner}: need batch=(x0, label), got {type(batch).__name__}. Pass a pair."
        )
    x0, label = (np.shape(part) for part in batch)
    whole = jnp.issubdtype(jnp.result_type(batch[1]), jnp.integer)
    if not whole or len(x0) < 2 or label != x0[:1]:
        raise InputError(
            f"{owner}: need x0 [B, *D] and an integer label [B], got x0.shape={x0}, "
            f"label.shape={label} of {jnp.result_type(batch[1])}. "
            "One label per example; no class is null_label."
        )


def check_common(
    owner: str,
    batch: Any,
    path: paths.Path,
    *,
    null_label: Any,
    t_sampling: Any,
    label_drop: Any = 0.0,
    kind: str = "velocity",
) -> None:
    """Raises an InputError for what every loss takes."""
    check_share(owner, "label_drop", label_drop)
    check_batch(owner, batch)
    paths.check_path(owner, path)
    paths.check_kind(owner, kind)
    number = 0.0 if traced(null_label) else paths.as_number(null_label)
    if not (number >= 0 and number.is_integer()):
        raise InputError(
            f"{owner}: need an integer null_label >= 0, got null_label={null_label!r}. "
            "It is the number of classes."
        )
    if not callable(t_sampling):
        raise InputError(
            f"{owner}: need a function t_sampling, got t_sampling={t_sampling!r}. "
            "Pass losses.uniform_t."
        )
