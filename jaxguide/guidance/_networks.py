"""Guidance by another set of weights.

The other network is an entry of the sampler's `networks`; it has the main network's
noise path, and any `kind`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL, RAW, Branch
from jaxguide.guidance._chain import Chain, chain
from jaxguide.guidance._checks import check_value
from jaxguide.guidance._contrast import Contrast, Weight, cfg, contrast
from jaxguide.guidance._numbers import check_number
from jaxguide.paths import Array


def reference_network(
    scale: Weight,
    *,
    network: str = "weak",
    cond: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Guidance away from another network, under any condition.

        raw + (scale(t) - 1) * (raw - other)  =  other + scale(t) * (raw - other)

    Several papers are settings of it, which differ in what the other network is and in
    its condition: Domain Guidance, Unconditional Priors, Diffusion-NPO, Steering
    Guidance. `guidance.PAPERS` has them; `autoguidance` has a function of its own.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the other network among the sampler's `networks`.
        cond: name of the condition that it is given; "cond" is the main one.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the network and the condition.

    Raises:
        InputError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the other network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3, with both the network and its
        condition free, as in NVlabs/edm2 @4bf8162, generate_images.py.
    Differs from the source: nothing known.
    """
    other = Branch(network=network, cond=cond)
    return contrast(
        scale, other, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="reference_network"
    )


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
        InputError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the weak network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3.
    Differs from the source: nothing known. What diffusers calls AutoGuidance is
        another method: the main network with layers left out AND the null condition,
        and no second network.
    """
    other = Branch(network=weak)
    return contrast(
        scale, other, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name="autoguidance"
    )


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
        InputError: if a number is not finite or the window is empty.

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
        contrast((scales, cfgs), NULL, neutral=(0.0, 1.0), name="rlg"),
        contrast(scales, base, neutral=1.0, name="rlg"),
        contrast(
            (scales, cfgs), base, toward=base_null, neutral=(1.0, 1.0), name="rlg"
        ),
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
        InputError: if a number is not finite or the window is empty.

    NFE: +1, and +1 more inside the window.
    Source: Zhang et al. 2022, SINE, arXiv:2212.04489, read against zhang-zx/SINE,
        ldm/models/diffusion/guidance_ddim.py. The defaults (scale 7.5, weight 0.7, the
        window) are known at second hand only.
    Differs from the source: one tuned network; each further one is the second part of
        another `sine`.
    """
    check_number("sine", "scale", scale)
    check_number("sine", "weight", weight)
    shares = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    tuned = Branch(network=network, cond=cond)
    mix = contrast(
        (schedules.constant(scale), shares), RAW, toward=tuned, neutral=(0.0, 0.0),
        name="sine",
    )  # fmt: skip
    return chain(cfg(scale), mix)


def interpolate_weights(first: Any, second: Any, omega: float | Array) -> Any:
    """Weights between two sets: (1 - omega) first + omega second.

    Args:
        first, second: `Network`s of one architecture, or pytrees of parameters.
        omega: 0 is `first`, 1 is `second`; may be traced, and lie outside [0, 1].

    Returns:
        What was given, a `Network` or a pytree, with dtypes kept. Leaves that are no
        floating-point arrays are those of `first`.

    Raises:
        InputError: if the two differ in structure.
    """
    check_value("interpolate_weights", "omega", omega)
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise InputError(
            "interpolate_weights: need two sets of weights of one structure, got "
            f"{jax.tree.structure(first)} and {jax.tree.structure(second)}. "
            "Give both networks the same function, kind, path and depth."
        )

    def mix(a: Any, b: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(a), jnp.floating):
            return a
        share = jnp.asarray(omega, jnp.result_type(a))
        return (1 - share) * a + share * jnp.asarray(b, share.dtype)

    return jax.tree.map(mix, first, second)
