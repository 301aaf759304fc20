"""AdamW with a warm-up and one of three ways to end."""

from __future__ import annotations

import math
from typing import Any

import jax
import optax

from jaxguide.errors import InputError

SCHEDULES = ("constant", "cosine", "wsd")


def learning_rate(
    name: str, peak: float, *, steps: int, warmup_steps: int = 0, decay_steps: int = 0
) -> optax.Schedule:
    """Learning rate by step: linear warm-up to `peak`, then

        constant   stays there
        cosine     half a cosine to 0 at `steps`
        wsd        stays (warm-up, stable, decay), then linear to 0 over the last
                   `decay_steps`; a resumed run may move its end by a new `steps`

    Args:
        name: one of `SCHEDULES`.
        peak: highest rate, > 0.
        steps: length of the run.
        warmup_steps: length of the warm-up.
        decay_steps: length of the decay of "wsd".

    Returns:
        A function of the step.

    Raises:
        InputError: if the name is unknown or the phases do not fit into `steps`.
    """
    if name not in SCHEDULES:
        raise InputError(
            f"learning_rate: need name in {SCHEDULES}, got name={name!r}. "
            "'constant' suits runs of unknown length."
        )
    fits = 0 <= warmup_steps <= steps - decay_steps <= steps
    if not (0 < peak < math.inf and fits):
        raise InputError(
            "learning_rate: need a finite peak > 0, warmup_steps and decay_steps >= 0 "
            "and warmup_steps + decay_steps <= steps, got "
            f"peak={peak!r}, warmup_steps={warmup_steps!r}, "
            f"decay_steps={decay_steps!r}, steps={steps!r}. Shorten a phase."
        )
    warmup = optax.linear_schedule(0.0, peak, max(warmup_steps, 1))
    if name == "cosine":
        tail = optax.cosine_decay_schedule(peak, max(steps - warmup_steps, 1))
        return optax.join_schedules([warmup, tail], [warmup_steps])
    stable = optax.constant_schedule(peak)
    if name == "constant":
        return optax.join_schedules([warmup, stable], [warmup_steps])
    decay = optax.linear_schedule(peak, 0.0, max(decay_steps, 1))
    borders = [warmup_steps, steps - decay_steps]
    return optax.join_schedules([warmup, stable, decay], borders)


def adamw(
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    b2: float = 0.999,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """AdamW that decays only the kernels of linear maps.

    Args:
        schedule: learning rate by step.
        weight_decay: >= 0; biases, the label table and the fixed position table
            are left alone.
        b2: decay of the second moment.
        clip: largest global norm of the gradient; None does not clip.

    Raises:
        InputError: if a number is out of range.
    """
    ranges = {
        "weight_decay": (weight_decay, "finite and >= 0", weight_decay >= 0),
        "b2": (b2, "in [0, 1)", 0 <= b2 < 1),
        "clip": (clip, "finite and > 0, or None", clip is None or clip > 0),
    }
    for name, (value, wanted, holds) in ranges.items():
        if not (holds and math.isfinite(value or 0)):
            raise InputError(
                f"adamw: need {name} {wanted}, got {name}={value!r}. Change {name}."
            )
    optimizer = optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decay_mask)
    if clip is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(clip), optimizer)


def decay_mask(params: Any) -> Any:
    """True for the leaves named "kernel", False elsewhere; same structure."""

    def is_kernel(path: tuple, _: jax.Array) -> bool:
        return path[-1] == jax.tree_util.DictKey("kernel")

    return jax.tree_util.tree_map_with_path(is_kernel, params)
