"""Guidance for diffusion and flow models as an algebra of pure functions.

Everything imported here depends on jax and numpy alone.
"""

import sys as _sys

__version__ = "0.2.0"

if _sys.argv[:1] == ["-m"]:  # a command of this package starts, and imports for seconds
    from jaxguide.runtime import interrupt as _interrupt

    _interrupt.install()

from jaxguide.errors import (
    InputError as InputError,
    NonFiniteError as NonFiniteError,
)
from jaxguide.guidance import (
    Branch as Branch,
    Chain as Chain,
    Cost as Cost,
    Guided as Guided,
    Network as Network,
    Pair as Pair,
    Step as Step,
    Transform as Transform,
    ab2 as ab2,
    adaptive_guidance as adaptive_guidance,
    adg as adg,
    apg as apg,
    apg_mix as apg_mix,
    autoguidance as autoguidance,
    beta_cfg as beta_cfg,
    blurred_input as blurred_input,
    cfg as cfg,
    cfg_cache as cfg_cache,
    cfg_zero as cfg_zero,
    cfgpp as cfgpp,
    chain as chain,
    classifier as classifier,
    classifier_denoised as classifier_denoised,
    compose as compose,
    contrast as contrast,
    crops as crops,
    dynamic_threshold as dynamic_threshold,
    energy as energy,
    fdg as fdg,
    frequency_cfg as frequency_cfg,
    guide as guide,
    guided_channels as guided_channels,
    icg as icg,
    interpolate_weights as interpolate_weights,
    linear_ag as linear_ag,
    mambo_g as mambo_g,
    nag as nag,
    negative as negative,
    nested as nested,
    pag as pag,
    perp_neg as perp_neg,
    rcfg as rcfg,
    rectified_cfgpp as rectified_cfgpp,
    reference_network as reference_network,
    renorm as renorm,
    rescale as rescale,
    rlg as rlg,
    s2 as s2,
    sag as sag,
    schedules as schedules,
    seg as seg,
    sg as sg,
    sg_prev as sg_prev,
    sine as sine,
    sliding_window as sliding_window,
    stg as stg,
    tcfg as tcfg,
    tfg as tfg,
    tpg as tpg,
    tsg as tsg,
    zero_init as zero_init,
)
from jaxguide.guidance.schedules import (
    Schedule as Schedule,
    constant as constant,
    window as window,
)
from jaxguide.samplers import (
    cost as cost,
    ddim as ddim,
    ddpm as ddpm,
    dpmpp_2m as dpmpp_2m,
    dpmpp_2m_sde as dpmpp_2m_sde,
    dpmpp_sde as dpmpp_sde,
    euler as euler,
    euler_maruyama as euler_maruyama,
    generate as generate,
    heun as heun,
    initial_noise as initial_noise,
    invert as invert,
    recurrent as recurrent,
    res_2m as res_2m,
    res_2s as res_2s,
    sample_keys as sample_keys,
    sde_heun as sde_heun,
    unipc as unipc,
)
from jaxguide.samplers.grids import (
    karras as karras,
    respaced as respaced,
    shifted as shifted,
    shifted_twice as shifted_twice,
    uniform as uniform,
)
