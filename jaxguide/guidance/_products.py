"""Two networks and CFG at once: contrasts whose weight is a product of two numbers."""

import dataclasses
from typing import Any

from jaxguide.guidance import schedules
from jaxguide.guidance._base import (
    NULL,
    RAW,
    Branch,
    Guided,
    Memoryless,
    Network,
    Outputs,
    Step,
)
from jaxguide.guidance._chain import Chain, chain
from jaxguide.guidance._contrast import Weight, cfg
from jaxguide.guidance._numbers import check_number, pytree


@pytree("first", "second")
class Product(Memoryless):
    """`guided + (first(t) - off[0]) * (second(t) - off[1]) * (toward - away)`.

    A contrast that two numbers switch: dead where either is neutral.
    """

    first: Any  # Schedules; inside `apply` their numbers at this step
    second: Any
    toward: Branch
    away: Branch
    off: tuple[float, float] = (0.0, 0.0)

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Both sides of the difference."""
        del network
        return (self.toward, self.away)

    def live(self, t: float, index: int = 0) -> bool:
        """False where either number is neutral."""
        del index
        pairs = zip((self.first, self.second), self.off, strict=True)
        return not any(number.neutral_at(t, off) for number, off in pairs)

    def change(self, guided: Guided, outputs: Outputs, step: Step) -> Guided:
        """Adds the weighted difference."""
        del step
        weight = (self.first - self.off[0]) * (self.second - self.off[1])
        change = outputs[self.toward] - outputs[self.away]
        return guided.plus(weight, change)


def rlg(
    scale: Weight,
    *,
    cfg_scale: Weight = 1.0,
    network: str = "base",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Chain:
    """Reinforcement learning guidance (RLG): from a base network to a tuned one.

        base + scale(t) * (tuned - base),    each with CFG at cfg_scale

    The main network is the tuned one. Scale 0 is the base, 1 the tuned network, more
    strengthens what the tuning did, between 0 and 1 weakens it.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        cfg_scale: CFG scale of both networks, likewise; 1 needs no null condition.
        network: name of the base network among the sampler's `networks`.
        t_lo, t_hi: window of `scale`, `[t_lo, t_hi)` in noise time; outside it the
            tuned network is used alone, with CFG at `cfg_scale`.

    Returns:
        A chain of three contrasts; it needs `network`, and `null` unless `cfg_scale`
        is 1.

    Raises:
        ValueError: if a number is not finite or the window is empty.

    NFE: +1 inside the window where cfg_scale is 1, else +3; outside, +1 for CFG.
    Source: Jin et al. 2025, arXiv:2508.21016 (scale 2), read against
        jinluo12345/Reinforcement-learning-guidance. The paper's s is `scale`.
    Differs from the source: nothing known.
    """
    check_number("rlg", "scale", scale)
    check_number("rlg", "cfg_scale", cfg_scale)
    scales = schedules.window(scale, t_lo=t_lo, t_hi=t_hi, outside=1.0)
    cfgs = schedules.constant(cfg_scale)
    base = Branch(network=network)
    base_null = dataclasses.replace(NULL, network=network)
    return chain(
        Product(scales, cfgs, RAW, NULL, (0.0, 1.0)),
        Product(scales, schedules.constant(1.0), RAW, base, (1.0, 0.0)),
        Product(scales, cfgs, base_null, base, (1.0, 1.0)),
    )


def sine(
    scale: Weight,
    weight: Weight,
    *,
    network: str = "tuned",
    cond: str = "source",
    t_lo: float = 0.4,
    t_hi: float = 1.0,
) -> Chain:
    """SINE: CFG whose conditional part is mixed with a network tuned on one image.

        null + scale(t) * [(1 - weight(t)) raw + weight(t) tuned - null]

    `tuned` is another network under another condition: the one that describes the
    image. The main network sees the condition of the wanted edit.

    Args:
        scale: CFG scale, neutral at 1; number, array [B], function, `Schedule`.
        weight: share of the tuned network, 0 (plain CFG) to 1, likewise.
        network: name of the tuned network among the sampler's `networks`.
        cond: name of the condition that the tuned network is given.
        t_lo, t_hi: window of `weight`, `[t_lo, t_hi)` in noise time; CFG outside.

    Returns:
        A chain of CFG and one contrast; it needs `network`, `cond` and `null`.

    Raises:
        ValueError: if a number is not finite or the window is empty.

    NFE: +1, and +1 more inside the window.
    Source: Zhang et al. 2022, SINE, arXiv:2212.04489, read against zhang-zx/SINE,
        ldm/models/diffusion/guidance_ddim.py. The defaults (scale 7.5, weight 0.7, the
        window) are known at second hand only.
    Differs from the source: one tuned network; each further one is the second part of
        another `sine`.
    """
    check_number("sine", "weight", weight)
    shares = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    tuned = Branch(network=network, cond=cond)
    mix = Product(schedules.constant(scale), shares, tuned, RAW)
    return chain(cfg(scale), mix)
