"""Numbers that depend on noise time, and the grids of noise times samplers walk."""

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
