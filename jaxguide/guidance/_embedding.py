"""Time-step guidance: away from a network that is unsure of the time."""

import dataclasses
from typing import Any

import jax

from jaxguide.guidance._axes import spread
from jaxguide.guidance._base import Branch, Change, View
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._layers import check_batch_axis, check_tap
from jaxguide.guidance._numbers import check_number
from jaxguide.guidance._schedule import Schedule
from jaxguide.paths import Array, widen


@dataclasses.dataclass(frozen=True)
class NoisyTime(Change):
    """Noise on the time embedding, in units of its own standard deviation."""

    power: float = 0.0

    name = "tsg"
    own = True

    def taps(self, here: View) -> dict[str, Any]:
        """`time_embedding`, a function of the embedding [B, width]."""
        check_tap("tsg", here.called, "time_embedding")
        size = here.part.numbers["std"].number * here.step.node.t**self.power
        key = here.key("tsg")

        def time_embedding(embedding: Array) -> Array:
            check_batch_axis("tsg", "an embedding", embedding, "[B, width]")
            wide = widen(embedding)
            amount = size.astype(wide.dtype).reshape(-1, 1)
            amount = amount * spread(wide)
            noise = jax.random.normal(key, wide.shape, wide.dtype)
            return (wide + amount * noise).astype(embedding.dtype)

        return {"time_embedding": time_embedding}


def tsg(
    scale: Weight = 2.5,
    *,
    std: float | jax.Array | Schedule = 2.0,
    power: float = 1.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Time-step guidance (TSG): away from the network with noise on its time embedding.

        raw + (scale(t) - 1) * (raw - noisy),
        noisy: embedding + std t^power sd(embedding) n,   n ~ N(0, I)

    The noise is fresh in every step and for every sample. It needs no condition, so it
    also guides unconditional networks.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        std: size of the noise in standard deviations of the embedding of a sample, over
            its features; number, array [B] or `Schedule`.
        power: exponent of noise time, static, >= 0; 0 is constant noise.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a key, and a network that takes
        `time_embedding`. (A perturbed time is no replacement: that is `sg`.)

    Raises:
        InputError: for a number out of range, or as `contrast`; at the first trace if
            the network does not take `time_embedding` or there is no key.

    NFE: +1 inside the window.
    Source: Sadat et al. 2024, arXiv:2407.02687 (conditional DiT: scale 2.5, std 2,
        power 1, all t; unconditional DiT: scale 5, std 1, power 0, t in 0.2 to 0.8).
    Differs from the source: the paper may disturb the first layers only; a network has
        one embedding here. That sd is over the features of one sample is our reading.
    """
    check_number("tsg", "std", std, low=0)
    power = static_number("tsg", "power", power, low=0)
    return contrast(
        scale,
        Branch(change=NoisyTime(power)),
        neutral=1.0,
        t_lo=t_lo,
        t_hi=t_hi,
        name="tsg",
        numbers={"std": std},
    )
