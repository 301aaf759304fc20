"""Samplers: pure, one interface; imports only jax and numpy.

`jaxguide.samplers.adaptive` (diffrax) is imported by itself, on purpose.
"""

from jaxguide.guidance.plan import Cost as Cost
from jaxguide.samplers.base import (
    Sampler as Sampler,
    initial_noise as initial_noise,
    sample_keys as sample_keys,
)
from jaxguide.samplers.generation import cost as cost, generate as generate
from jaxguide.samplers.invert import invert as invert
from jaxguide.samplers.multistep import (
    dpmpp_2m as dpmpp_2m,
    dpmpp_2m_sde as dpmpp_2m_sde,
    res_2m as res_2m,
)
from jaxguide.samplers.recurrent import recurrent as recurrent
from jaxguide.samplers.second import (
    dpmpp_sde as dpmpp_sde,
    heun as heun,
    res_2s as res_2s,
)
from jaxguide.samplers.single import (
    ddim as ddim,
    ddpm as ddpm,
    euler as euler,
    euler_maruyama as euler_maruyama,
)
from jaxguide.samplers.unipc import unipc as unipc
