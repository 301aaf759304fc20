"""Guidance for diffusion and flow models as an algebra of pure functions.

Everything imported here depends on jax and numpy alone.
"""

from jaxguide.guidance import (
    Branch as Branch,
    Chain as Chain,
    Cost as Cost,
    Guided as Guided,
    Network as Network,
    Pair as Pair,
    Step as Step,
    Transform as Transform,
    autoguidance as autoguidance,
    cfg as cfg,
    chain as chain,
    compose as compose,
    contrast as contrast,
    guide as guide,
    nag as nag,
    negative as negative,
    pag as pag,
    rescale as rescale,
    s2 as s2,
    sag as sag,
    seg as seg,
    sg as sg,
    sg_prev as sg_prev,
    slg as slg,
    stg as stg,
    tpg as tpg,
    tsg as tsg,
)
from jaxguide.samplers import (
    cost as cost,
    ddim as ddim,
    ddpm as ddpm,
    dpmpp_2m as dpmpp_2m,
    dpmpp_2m_sde as dpmpp_2m_sde,
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
    unipc as unipc,
)
from jaxguide.schedules import (
    Schedule as Schedule,
    constant as constant,
    karras as karras,
    respaced as respaced,
    shifted as shifted,
    uniform as uniform,
    window as window,
)
from jaxguide.version import __version__ as __version__
