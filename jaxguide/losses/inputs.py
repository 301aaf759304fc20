"""The numbers that a guided network takes, for a scale that is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jaxguide.errors import InputError
from jaxguide.paths import as_number


def inputs_at(scale: float, names: Iterable[str]) -> dict[str, float]:
    """Values of a network's number inputs for guidance of `scale`.

        scale = s,  beta = 1 / s,  duration = 0 (the velocity of this moment)

    Args:
        scale: s > 0; 1 is unguided.
        names: of the inputs, as in `DiTConfig.inputs`.

    Raises:
        InputError: if `scale` is not positive.

    >>> inputs_at(2.0, ("beta",))
    {'beta': 0.5}
    """
    if not 0 < as_number(scale) < math.inf:
        raise InputError(
            f"inputs_at: need a finite scale > 0, got scale={scale!r}. 1 is plain."
        )
    values = {"scale": scale, "beta": 1 / scale, "duration": 0.0}
    return {name: values[name] for name in names}
