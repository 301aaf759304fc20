"""Automatic weight of Model-Guidance: evaluations say whether more guidance would help.

A network trained with weight w predicts guidance of scale S = 1 / (1 - w). Sampling it
with classifier-free guidance of scale f on top shows what S f would give, without
training it. So every evaluation samples at f = 1 / spread, 1 and spread, with the same
noise and classes, measures a distance to real data, and

    log f* = minimum of the parabola through the three distances, over log f
             (a distance that does not curve upwards: the better end)
    w*     = 1 - 1 / (S f*)                      the weight that would teach S f*
    w     <- w + rate (clip(w*, 0, max_weight) - w)

Nothing but w is remembered: a resumed run goes on as an unbroken one would have.

Source: Tang et al. 2025, arXiv:2502.12154, Sec. 3.3, which sketches: "begin with w = 0,
    update the value with EMA according to intermediate evaluation results", raised when
    quality decreases and suppressed otherwise.
Differs from the source: the sketch compares an evaluation with the one before, where
    training and guidance have changed together; here guidance alone differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths import as_number

Quality = Callable[[Any], float]  # images -> distance to real data; lower is better


def trial_scales(spread: float = 1.25) -> tuple[float, float, float]:
    """Classifier-free guidance scales to sample at: 1 / spread, 1, spread.

    Raises:
        InputError: if `spread` is not above 1.
    """
    if not 1 < as_number(spread) < math.inf:
        raise InputError(
            f"trial_scales: need a finite spread > 1, got spread={spread!r}. Use 1.25."
        )
    return 1 / spread, 1.0, spread


def best_scale(distances: Sequence[float], *, spread: float = 1.25) -> float:
    """The scale in [1 / spread, spread] that is best by three distances.

    Args:
        distances: at `trial_scales(spread)`; lower is better.
        spread: > 1.

    Returns:
        f*; 1 if a distance is not finite.

    >>> best_scale([2.0, 1.0, 2.0])
    1.0
    """
    if len(distances) != 3:
        raise InputError(
            f"best_scale: need three distances, got {len(distances)}. They are those "
            "at trial_scales(spread)."
        )
    low, middle, high = (float(distance) for distance in distances)
    if not math.isfinite(low + middle + high):
        return 1.0
    curve = low - 2 * middle + high
    if curve > 0:
        share = (low - high) / (2 * curve)
    else:
        share = float(np.sign(low - high))
    return spread ** min(max(share, -1.0), 1.0)


def next_weight(
    weight: float,
    distances: Sequence[float],
    *,
    spread: float = 1.25,
    rate: float = 0.3,
    max_weight: float = 0.75,
) -> float:
    """The weight after one evaluation, in [0, max_weight].

    Args:
        weight: w of the network that was sampled.
        distances: at `trial_scales(spread)`; lower is better.
        spread: > 1; a larger one measures more surely and blurs more.
        rate: of the running average, in (0, 1]. Weights need time to act: between two
            evaluations the teacher should be renewed several times over.
        max_weight: in [0, 1); 0.75 is a scale of 4.

    Raises:
        InputError: if `rate`, `max_weight` or `weight` is out of range.

    >>> round(next_weight(0.0, [3.0, 2.0, 1.0]), 3)
    0.06
    """
    rates = as_number(rate), as_number(max_weight), as_number(weight)
    if not (0 < rates[0] <= 1 and 0 <= rates[1] < 1 and 0 <= rates[2] < 1):
        raise InputError(
            "next_weight: need 0 < rate <= 1 and 0 <= weight, max_weight < 1, got "
            f"weight={weight!r}, rate={rate!r}, max_weight={max_weight!r}. "
            "rate=0.3 and max_weight=0.75 are the defaults."
        )
    wanted = 1 - (1 - weight) / best_scale(distances, spread=spread)
    wanted = min(max(wanted, 0.0), max_weight)
    return weight + rate * (wanted - weight)


def auto_weight(
    sample: Callable[[Any, float], Any],
    quality: Quality,
    *,
    spread: float = 1.25,
    rate: float = 0.3,
    max_weight: float = 0.75,
) -> Callable[[int, Any], dict[str, float]]:
    """The rule as a function of a training state, for the loop to call.

    Args:
        sample: `(params, scale) -> images`, with classifier-free guidance of `scale`
            in the window in which Model-Guidance guides; the same noise and classes at
            every call.
        quality: `images -> distance` to real data, such as `energy_distance`.
        spread, rate, max_weight: see `next_weight`.

    Returns:
        `tune(step, state) -> {"weight": w}`, the new value for `state.tuned`, to be
        called every few hundred steps. A run with it starts from tuned weight 0.

    Raises:
        InputError: if `spread` is not above 1.
    """
    scales = trial_scales(spread)

    def tune(step: int, state: Any) -> dict[str, float]:
        del step
        distances = [quality(sample(state.ema_params, scale)) for scale in scales]
        weight = next_weight(
            float(state.tuned["weight"]),
            distances,
            spread=spread,
            rate=rate,
            max_weight=max_weight,
        )
        return {"weight": weight}

    return tune
