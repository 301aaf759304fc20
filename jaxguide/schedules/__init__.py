"""Numbers that depend on noise time, and the grids of noise times samplers walk."""

from jaxguide.schedules.curves import (
    CURVES as CURVES,
    Curve as Curve,
    beta as beta,
    clamp as clamp,
    cosine as cosine,
    down_up as down_up,
    inverse_linear as inverse_linear,
    linear as linear,
    powered_cosine as powered_cosine,
    sine as sine,
    up_down as up_down,
)
from jaxguide.schedules.grids import (
    check_grid as check_grid,
    karras as karras,
    respaced as respaced,
    shifted as shifted,
    uniform as uniform,
)
from jaxguide.schedules.schedule import (
    Schedule as Schedule,
    Window as Window,
    constant as constant,
    is_schedule as is_schedule,
    slack as slack,
    window as window,
)
