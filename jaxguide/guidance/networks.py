"""Guidance by another set of weights: one primitive and the papers that are cases of it.

The other network is an entry of the sampler's `networks`; it has the main network's
noise path, and any `kind`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide import schedules
from jaxguide.guidance.base import (
    RAW,
    Branch,
    Guided,
    Network,
    Outputs,
    Step,
    add_scaled,
    check_number,
    pytree,
)
from jaxguide.guidance.chain import Chain, chain
from jaxguide.guidance.contrast import Contrast, Weight, cfg, contrast
from jaxguide.paths import Array


def reference_network(
    scale: Weight,
    *,
    network: str = "weak",
    cond: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    name: str = "reference_network",
) -> Contrast:
    """Guidance away from another network, under any condition.

        raw + (scale(t) - 1) * (raw - other)  =  other + scale(t) * (raw - other)

    The primitive of `autoguidance`, `domain_guidance`, `unconditional_prior`, `npo` and
    `personalization`, which differ in what the other network is and what it is told.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the other network among the sampler's `networks`.
        cond: name of the condition that it is given; "cond" is the main one.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        name: for printing and error messages.

    Returns:
        A transform without state; it needs the network and the condition.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the other network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3, with both the network and its
        condition free, as in NVlabs/edm2 @4bf8162, generate_images.py.
    Differs from the source: nothing known.
    """
    away = Branch(network=network, cond=cond)
    return contrast(scale, away, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name=name)


def autoguidance(
    scale: Weight, *, weak: str = "weak", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """Guidance by a weaker network that sees the same condition.

        raw + (scale(t) - 1) * (raw - weak)

    With CFG, by interpolating between the two references with a share p of the null
    one: `chain(autoguidance(1 + (1 - p) * (s - 1)), cfg(1 + p * (s - 1)))`.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        weak: name of an entry of the sampler's `networks`: fewer parameters, less
            training, or both, with the same data and path.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the network `weak`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the weak network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3.
    Differs from the source: nothing known. What diffusers calls AutoGuidance is
        another method: the main network with layers left out AND the null condition,
        and no second network.
    """
    return reference_network(
        scale, network=weak, t_lo=t_lo, t_hi=t_hi, name="autoguidance"
    )


def domain_guidance(
    scale: Weight,
    *,
    network: str = "pretrained",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Guidance of a fine-tuned network by the null prediction of the pretrained one.

        pretrained_null + scale(t) * (raw - pretrained_null)

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the pretrained network among the sampler's `networks`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `network` and the condition `null`, which
        must mean the same to both networks.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: Zhong et al. 2025, Domain Guidance, arXiv:2504.01521, as its authors'
        repository describes it (scale about 1.5).
    Differs from the source: nothing known.
    """
    return reference_network(
        scale, network=network, cond="null", t_lo=t_lo, t_hi=t_hi,
        name="domain_guidance",
    )  # fmt: skip


def unconditional_prior(
    scale: Weight, *, network: str = "base", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """CFG of a fine-tuned network with the null prediction of a better base network.

        base_null + scale(t) * (raw - base_null)

    The formula of `domain_guidance`; the base may be any good unconditional network of
    the same data space, not only the one that was fine-tuned.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the base network among the sampler's `networks`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `network` and the condition `null`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: Phunyaphibarn et al. 2025, Unconditional Priors Matter, arXiv:2503.20240.
    Differs from the source: nothing known.
    """
    return reference_network(
        scale, network=network, cond="null", t_lo=t_lo, t_hi=t_hi,
        name="unconditional_prior",
    )  # fmt: skip


def npo(
    scale: Weight,
    *,
    network: str = "dispreferred",
    cond: str = "null",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """CFG whose null or negative branch has weights trained on negative preferences.

        dispreferred_null + scale(t) * (raw - dispreferred_null)

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the network trained against human preference (Diffusion-NPO)
            or on its own truncated samples (Self-NPO), among the sampler's `networks`.
        cond: the condition it is given, "null" or "negative".
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `network` and the condition `cond`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: Wang et al. 2025, Diffusion-NPO, arXiv:2505.11245, read against
        G-U-N/Diffusion-NPO, gen.py; Self-NPO, arXiv:2505.11777.
    Differs from the source: the negative weights (a mix of tuned and base weights plus
        the trained adapter) are made beforehand, for example with `interpolate`.
    """
    return reference_network(
        scale, network=network, cond=cond, t_lo=t_lo, t_hi=t_hi, name="npo"
    )


def personalization(
    scale: Weight, *, network: str = "mixed", t_lo: float = 0.0, t_hi: float = 1.0
) -> Contrast:
    """Guidance of a personalised network by the null prediction of mixed weights.

        mixed_null + scale(t) * (raw - mixed_null)

    `mixed` has the weights (1 - omega) pretrained + omega tuned, made once:
    `networks={"mixed": interpolate(pretrained, tuned, omega)}`. With omega = 0 it is
    `domain_guidance`, with omega = 1 plain CFG.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the mixed network among the sampler's `networks`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs `network` and the condition `null`.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window.
    Source: Park et al. 2025, Steering Guidance for Personalized Text-to-Image
        Diffusion Models, arXiv:2508.00319 (omega 0 to 0.3, scale 7.5); the formula is
        known at second hand only.
    Differs from the source: nothing known.
    """
    return reference_network(
        scale, network=network, cond="null", t_lo=t_lo, t_hi=t_hi,
        name="personalization",
    )  # fmt: skip


def interpolate(first: Any, second: Any, omega: float | Array) -> Any:
    """Weights between two sets: (1 - omega) first + omega second.

    Args:
        first, second: `Network`s of one architecture, or pytrees of parameters.
        omega: 0 is `first`, 1 is `second`; may be traced, and lie outside [0, 1].

    Returns:
        What was given, a `Network` or a pytree, with dtypes kept. Leaves that are no
        floating-point arrays are those of `first`.

    Raises:
        ValueError: if the two differ in structure.
    """
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise ValueError(
            "interpolate: need two sets of weights of one structure, got "
            f"{jax.tree.structure(first)} and {jax.tree.structure(second)}. "
            "Give both networks the same function, kind, path and depth."
        )

    def mix(a: Any, b: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(a), jnp.floating):
            return a
        share = jnp.asarray(omega, jnp.result_type(a))
        return (1 - share) * a + share * jnp.asarray(b, share.dtype)

    return jax.tree.map(mix, first, second)


@pytree("first", "second")
class Product:
    """`guided + (first(t) - off[0]) * (second(t) - off[1]) * (toward - away)`.

    A contrast that two numbers switch: dead where either is neutral.
    """

    first: Any  # Schedules; inside `apply` their numbers at this step
    second: Any
    toward: Branch
    away: Branch
    off: tuple[float, float] = (0.0, 0.0)

    def init(self, x: Array) -> tuple[()]:
        """No state."""
        del x
        return ()

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Both sides of the difference."""
        del network
        return (self.toward, self.away)

    def live(self, t: float, index: int = 0) -> bool:
        """False where either number is neutral."""
        del index
        pairs = zip((self.first, self.second), self.off, strict=True)
        return not any(number.neutral_at(t, off) for number, off in pairs)

    def apply(
        self,
        guided: Guided,
        state: tuple[()],
        outputs: Outputs,
        step: Step,
        *,
        live: bool,
    ) -> tuple[Guided, tuple[()]]:
        """Adds the weighted difference."""
        del step
        if not live:
            return guided, state
        weight = (self.first - self.off[0]) * (self.second - self.off[1])
        change = outputs[self.toward] - outputs[self.away]
        prediction = add_scaled(guided.prediction, weight, change)
        return guided._replace(prediction=prediction), state


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
    base, null = Branch(network=network), Branch(cond="null")
    base_null = dataclasses.replace(null, network=network)
    return chain(
        Product(scales, cfgs, RAW, null, (0.0, 1.0)),
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
