"""Guidance as pure transforms: imports only jax and numpy."""

from jaxguide.guidance.base import (
    ANY as ANY,
    NATIVE as NATIVE,
    RAW as RAW,
    Branch as Branch,
    CondMap as CondMap,
    Guided as Guided,
    Network as Network,
    Outputs as Outputs,
    Step as Step,
    Tap as Tap,
    Transform as Transform,
    Weighted as Weighted,
    add_scaled as add_scaled,
    pytree as pytree,
)
from jaxguide.guidance.chain import Chain as Chain, chain as chain
from jaxguide.guidance.contrast import (
    Contrast as Contrast,
    DirectionMap as DirectionMap,
    Sides as Sides,
    autoguidance as autoguidance,
    cfg as cfg,
    compose as compose,
    contrast as contrast,
    negative as negative,
)
from jaxguide.guidance.evaluate import (
    Pair as Pair,
    default_batched as default_batched,
    evaluate as evaluate,
    guided_prediction as guided_prediction,
    predict_branches as predict_branches,
)
from jaxguide.guidance.guide import (
    Guide as Guide,
    GuideState as GuideState,
    guide as guide,
)
from jaxguide.guidance.plan import (
    Cost as Cost,
    Run as Run,
    cost as cost,
    make_runs as make_runs,
)
from jaxguide.guidance.rescale import rescale as rescale
from jaxguide.guidance.s2 import DropBlocks as DropBlocks, s2 as s2
from jaxguide.guidance.self_guidance import (
    SGPrevState as SGPrevState,
    Shift as Shift,
    sg as sg,
    sg_prev as sg_prev,
)
