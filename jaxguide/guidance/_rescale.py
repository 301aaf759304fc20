"""Rescaling of the guided prediction to the standard deviation of the raw one."""

from typing import Any

import jax.numpy as jnp

from jaxguide.guidance import schedules
from jaxguide.guidance._base import RAW, Guided, Outputs, Step, Weighted
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._numbers import check_number, pytree
from jaxguide.paths import Array


@pytree("weight")
class Rescale(Weighted):
    """See `rescale`."""

    weight: Any  # a Schedule; inside `apply` its number at this step

    def change(self, guided: Guided, outputs: Outputs, step: Step) -> Guided:
        """Moves the running result towards its rescaled form."""
        del step
        wanted, found = _std(outputs[RAW]), _std(guided.prediction)
        ratio = jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1.0), 1.0)
        change = (ratio - 1).astype(guided.prediction.dtype) * guided.prediction
        return guided.plus(self.weight, change)


def _std(prediction: Array) -> Array:
    """Standard deviation per sample in float32, shaped to broadcast."""
    axes = tuple(range(1, prediction.ndim))
    return jnp.std(prediction.astype(jnp.float32), axis=axes, keepdims=True)


def rescale(weight: Weight = 0.7, *, t_lo: float = 0.0, t_hi: float = 1.0) -> Rescale:
    """Gives the guided prediction the standard deviation of the raw one, in part.

        guided * (1 - weight + weight * std(raw) / std(guided))

    Standard deviations are per sample, over all other axes. Not linear: it acts on what
    stands to its left in the chain. Acts on the raw network output, whatever its kind.

    Args:
        weight: 0 (off) to 1 (full match); number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; off outside.

    Returns:
        A transform without state.

    Raises:
        ValueError: if a number is outside [0, 1] or the window is empty.

    NFE: +0.
    Source: Lin et al. 2023, arXiv:2305.08891, Eqs. 15 and 16 (weight 0.7).
    Differs from the source: nothing known.
    """
    check_number("rescale", "weight", weight, low=0.0)
    if isinstance(weight, int | float) and weight > 1:
        raise ValueError(f"rescale: need weight <= 1, got weight={weight!r}.")
    return Rescale(schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0))
