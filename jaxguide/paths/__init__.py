"""Noise paths: how data turns into noise, and every prediction into every other.

A path mixes clean data `x0` and unit Gaussian `noise` at noise time `t` in [0, 1]
(1 = noise, 0 = data):

    x_t = alpha(t) x0 + sigma(t) noise                                        (1)

A network predicts one of four `kind`s, which hold the same information at fixed
`(x, t)`. With a' = d alpha / dt and s' = d sigma / dt:

    velocity = a' x0 + s' noise              = dx / dt                        (2)
    denoised = E[x0 | x_t]                                                    (3)
    noise    = (x - alpha denoised) / sigma                                   (4)
    score    = grad log p_t(x) = -noise / sigma                               (5)

`denoised` follows from `velocity` by eliminating `noise` from (1) and (2):

    denoised = (s' x - sigma velocity) / (alpha s' - sigma a')                (6)

Each conversion is affine in the prediction, so differences of predictions at one
`(x, t)` convert by a factor alone (`difference_factor`). A conversion is undefined
where its denominator is 0: `denoised` from `noise` where alpha = 0 (t = 1 of `Linear`
and `GVP`), `noise` and `score` from `denoised` where sigma = 0 (t = 0).

All functions of time take host numbers (computed in float64) and JAX arrays alike.
"""

from jaxguide.paths._checks import (
    as_number as as_number,
    check_grid as check_grid,
    is_integer as is_integer,
)
from jaxguide.paths._coefficients import (
    DDPM as DDPM,
    EDM as EDM,
    GVP as GVP,
    MAX_TIMESTEPS as MAX_TIMESTEPS,
    PATHS as PATHS,
    SCHEDULES as SCHEDULES,
    VP as VP,
    ArrayLike as ArrayLike,
    Linear as Linear,
    Node as Node,
    Path as Path,
    check_path as check_path,
    numerics as numerics,
    scaled_linear as scaled_linear,
)
from jaxguide.paths._kinds import (
    KINDS as KINDS,
    NOTHING as NOTHING,
    Array as Array,
    check_kind as check_kind,
    convert as convert,
    corrupt as corrupt,
    difference_factor as difference_factor,
    expand as expand,
    from_pair as from_pair,
    target as target,
    to_pair as to_pair,
    undetermined as undetermined,
    widen as widen,
)
