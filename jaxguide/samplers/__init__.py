"""Samplers: pure, one interface; imports only jax and numpy.

`jaxguide.samplers.adaptive` (diffrax) is imported by itself, on purpose.
"""

from jaxguide.guidance import Cost as Cost
from jaxguide.samplers._base import (
    Sampler as Sampler,
    initial_noise as initial_noise,
    sample_keys as sample_keys,
)
from jaxguide.samplers._generation import cost as cost, generate as generate
from jaxguide.samplers._invert import invert as invert
from jaxguide.samplers._multistep import (
    dpmpp_2m as dpmpp_2m,
    dpmpp_2m_sde as dpmpp_2m_sde,
    res_2m as res_2m,
)
from jaxguide.samplers._recurrent import recurrent as recurrent
from jaxguide.samplers._sde_heun import sde_heun as sde_heun
from jaxguide.samplers._second import (
    dpmpp_sde as dpmpp_sde,
    heun as heun,
    res_2s as res_2s,
)
from jaxguide.samplers._single import (
    ddim as ddim,
    ddpm as ddpm,
    euler as euler,
    euler_maruyama as euler_maruyama,
)
from jaxguide.samplers._sweep import (
    Points as Points,
    make_points as make_points,
    structure as structure,
    sweep as sweep,
)
from jaxguide.samplers._unipc import unipc as unipc
from jaxguide.samplers.grids import (
    karras as karras,
    respaced as respaced,
    shifted as shifted,
    shifted_twice as shifted_twice,
    uniform as uniform,
)
