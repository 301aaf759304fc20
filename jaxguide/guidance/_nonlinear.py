"""Non-linear forms of classifier-free guidance: its difference through direction maps.

Each depends on the prediction space; `space` is where its paper defines it. Diffusers
applies them to the raw network output, `space="native"`.
"""

import math

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL
from jaxguide.guidance._chain import Chain, chain
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._directions import (
    damp,
    norm_power,
    opt_scale,
    rotate,
    tangential,
)
from jaxguide.guidance._numbers import NATIVE, check_named_space, check_number
from jaxguide.guidance._replaced import zero_init as zero_init_map
from jaxguide.paths import Array


def cfg_zero(
    scale: Weight,
    *,
    zero_init: float = 0.04,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = NATIVE,
) -> Chain:
    """CFG-Zero*: the null prediction scaled to fit, and nothing at all at the start.

        s null + scale(t) * (raw - s null)      s = <raw, null> / (|null|^2 + 1e-8)
        0                                       for t >= 1 - zero_init

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        zero_init: share of noise time, from 1 down, in which the prediction is zero, in
            [0, 1); 0 switches that off. It stays where scale is neutral.
        t_lo, t_hi: window `[t_lo, t_hi)` of the scale in noise time.
        space: where the inner product is taken; "native" is velocity for flow models
            and noise for diffusion models.

    Returns:
        A chain of one contrast and `zero_init`; it needs the condition `null`.

    Raises:
        InputError: if `zero_init` is out of range, or as `contrast`.

    NFE: +1 inside the window, without the zeroed steps.
    Source: Fan et al. 2025, arXiv:2503.18886; read against WeichenFan/CFG-Zero-star.
    Differs from the source: the paper zeroes 4 % of the steps, the code K = 1 step
        (diffusers too); here it is a share of noise time, whatever the steps: the first
        step of a uniform grid of 25 or more, two of 50.
    """
    check_named_space("cfg_zero", space)
    zero_init = static_number("cfg_zero", "zero_init", zero_init)
    t_lo = static_number("cfg_zero", "t_lo", t_lo)
    t_hi = static_number("cfg_zero", "t_hi", t_hi)
    if not 0 <= zero_init < 1 - t_lo:
        raise InputError(
            "cfg_zero: need 0 <= zero_init < 1 - t_lo, got "
            f"zero_init={zero_init!r}, t_lo={t_lo!r}."
        )
    guided = contrast(
        scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=min(t_hi, 1.0 - zero_init),
        space=space, name="cfg_zero", maps=(opt_scale(),),
    )  # fmt: skip
    return chain(guided, zero_init_map(1 - zero_init)) if zero_init else chain(guided)


def tcfg(
    scale: Weight,
    *,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = NATIVE,
) -> Contrast:
    """Tangential damping CFG (TCFG): the null prediction without what is its own.

        damped + scale(t) * (raw - damped)      damped = <null, v> v

    v is the top right singular vector of the two rows [raw; null], per sample.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where v is computed, one of `SPACES`.

    Returns:
        A transform without state; it needs the condition `null`.

    Raises:
        InputError: as `contrast`.

    NFE: +1 inside the window.
    Source: Kwon et al. 2025, arXiv:2503.18137, as in diffusers; scale 7.5 for SD 1.5.
    Differs from the source: v comes from the 2 x 2 Gram matrix in closed form, not from
        an SVD. ComfyUI takes v of x - denoised, which is `space="noise"`.
    """
    check_named_space("tcfg", space)
    return contrast(
        scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=t_hi, space=space, name="tcfg",
        maps=(tangential(),),
    )  # fmt: skip


def adg(
    scale: Weight,
    *,
    limit: float = math.pi / 3,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = "denoised",
) -> Contrast:
    """Angle-domain guidance (ADG): turns the prediction, and only so far.

        cos(turn) raw + sin(turn) / sin(angle) * (raw - proj_null raw)
        turn = min((scale(t) - 1) * angle, limit)       angle between raw and null

    The formula is known at second hand only. As written it does not keep the norm.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        limit: the largest turn in radians.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the angle is taken, one of `SPACES`.

    Returns:
        A transform without state; it needs the condition `null`.

    Raises:
        InputError: if `limit` is not positive, or as `contrast`.

    NFE: +1 inside the window.
    Source: Jin et al. 2025, Angle Domain Guidance, arXiv:2506.11039, through the port
        in ACE-Step (scale 6).
    Differs from the source: not known; the paper was not read.
    """
    check_named_space("adg", space)
    return contrast(
        scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=t_hi, space=space, name="adg",
        maps=(rotate(limit),),
    )  # fmt: skip


def mambo_g(
    scale: Weight = 10.0,
    *,
    strength: Weight = 8.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = NATIVE,
) -> Contrast:
    """Magnitude-aware guidance (MAMBO-G): less where the difference is large.

        raw + (scale(t) - 1) * exp(-strength |raw - null| / |null|) * (raw - null)

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        strength: of the damping, at least 0; 0 is CFG.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.
        space: where the lengths are taken, one of `SPACES`.

    Returns:
        A transform without state; it needs the condition `null`.

    Raises:
        InputError: if `strength` is negative, or as `contrast`.

    NFE: +1 inside the window.
    Source: arXiv:2508.03442, as in diffusers (scale 10, strength 8).
    Differs from the source: nothing known. Diffusers' own code raises for images and
        video, where its norm takes three axes.
    """
    check_named_space("mambo_g", space)
    return contrast(
        scale, NULL, neutral=1.0, t_lo=t_lo, t_hi=t_hi, space=space, name="mambo_g",
        maps=(damp(strength),),
    )  # fmt: skip


def beta_cfg(
    scale: float | Array = 7.5,
    *,
    a: float = 2.0,
    b: float = 2.0,
    power: Weight = 0.5,
    t_last: float = 0.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    space: str = "noise",
) -> Chain:
    """beta-CFG: a scale that follows a Beta density, on a difference made shorter.

        null + scale * Beta(p; a, b) * (raw - null) / |raw - null|^power
        p = (1 - t) / (1 - t_last)

    At both ends of sampling the weight is 0 for a, b > 1: the null prediction, as in
    the source. So no scale is neutral; outside the window the prediction is raw.

    Args:
        scale: dimensionless; number or array [B].
        a, b: shape of the density, at least 1.
        power: of the norm: 0 keeps the difference, 1 gives it unit length.
        t_last: noise time at which p is 1; the start of a grid's last step gives the
            source's exact 0 there.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time.
        space: where the norm is taken, one of `SPACES`.

    Returns:
        A chain of two contrasts without state; it needs the condition `null`.

    Raises:
        InputError: if `a`, `b` or `t_last` is out of range, or as `contrast`.

    NFE: +1 inside the window.
    Source: Malarz et al. 2025, arXiv:2502.10574; read against gmum/beta-CFG
        (scale 7.5).
    Differs from the source: p is a share of noise time, the code's i / (N - 1) on
        uniform steps. `a`, `b` and `power` have no single published default: a, b from
        2 to 3, power in [0, 1].
    """
    check_named_space("beta_cfg", space)
    check_number("beta_cfg", "scale", scale)
    density = schedules.beta(scale, a, b, t_last=t_last)
    return chain(
        contrast(-1.0, NULL, t_lo=t_lo, t_hi=t_hi, name="beta_cfg"),
        contrast(
            density, NULL, t_lo=t_lo, t_hi=t_hi, space=space, name="beta_cfg",
            maps=(norm_power(power),),
        ),
    )  # fmt: skip
