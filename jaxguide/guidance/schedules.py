"""Numbers that depend on noise time: constants, windows, curves, functions."""

from jaxguide.guidance._curves import (
    CURVES as CURVES,
    Curve as Curve,
    beta as beta,
    clamp as clamp,
    cosine as cosine,
    down_up as down_up,
    inverse_linear as inverse_linear,
    linear as linear,
    powered_cosine as powered_cosine,
    sine_curve as sine_curve,
    up_down as up_down,
)
from jaxguide.guidance._schedule import (
    Schedule as Schedule,
    Window as Window,
    constant as constant,
    is_schedule as is_schedule,
    slack as slack,
    window as window,
)
