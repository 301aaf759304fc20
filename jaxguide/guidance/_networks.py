"""Guidance by another set of weights: one primitive, and the papers that use it.

The other network is an entry of the sampler's `networks`; it has the main network's
noise path, and any `kind`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.guidance._base import Branch
from jaxguide.guidance._contrast import Contrast, Weight, contrast
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

    The primitive of `autoguidance`, `domain_guidance`, `unconditional_prior`, `npo` and
    `personalization`, which differ in what the other network is and what it is told.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        network: name of the other network among the sampler's `networks`.
        cond: name of the condition that it is given; "cond" is the main one.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the network and the condition.

    Raises:
        ValueError: if `scale` is not finite or the window is empty.

    NFE: +1 inside the window, at the price of the other network.
    Source: Karras et al. 2024, arXiv:2406.02507, Eq. 3, with both the network and its
        condition free, as in NVlabs/edm2 @4bf8162, generate_images.py.
    Differs from the source: nothing known.
    """
    return _away(scale, network, cond, t_lo, t_hi, "reference_network")


def _away(
    scale: Weight, network: str, cond: str, t_lo: float, t_hi: float, name: str
) -> Contrast:
    other = Branch(network=network, cond=cond)
    return contrast(scale, other, neutral=1.0, t_lo=t_lo, t_hi=t_hi, name=name)


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
    return _away(scale, weak, "cond", t_lo, t_hi, "autoguidance")


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
    return _away(scale, network, "null", t_lo, t_hi, "domain_guidance")


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
    return _away(scale, network, "null", t_lo, t_hi, "unconditional_prior")


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
    return _away(scale, network, cond, t_lo, t_hi, "npo")


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
    return _away(scale, network, "null", t_lo, t_hi, "personalization")


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
