"""Guidance as pure transforms: imports only jax and numpy."""

from jaxguide.guidance._adaptive_guidance import (
    AdaptiveGuidance as AdaptiveGuidance,
    AdaptiveState as AdaptiveState,
    adaptive_guidance as adaptive_guidance,
)
from jaxguide.guidance._apg import Phases as Phases, apg as apg, apg_mix as apg_mix
from jaxguide.guidance._attention import (
    BlurredQueries as BlurredQueries,
    ChangedAttention as ChangedAttention,
    IdentityAttention as IdentityAttention,
    pag as pag,
    seg as seg,
)
from jaxguide.guidance._bands import (
    fdg as fdg,
    frequency as frequency,
    frequency_cfg as frequency_cfg,
    laplacian as laplacian,
)
from jaxguide.guidance._base import (
    NULL as NULL,
    RAW as RAW,
    Branch as Branch,
    Change as Change,
    Guided as Guided,
    Step as Step,
    View as View,
)
from jaxguide.guidance._batching import (
    MOST_ROWS as MOST_ROWS,
    rows_on as rows_on,
)
from jaxguide.guidance._blocks import (
    ShuffledTokens as ShuffledTokens,
    SkippedBlocks as SkippedBlocks,
    SkippedPart as SkippedPart,
    stg as stg,
    tpg as tpg,
)
from jaxguide.guidance._chain import Chain as Chain, chain as chain
from jaxguide.guidance._conditions import (
    RandomCondition as RandomCondition,
    compose as compose,
    icg as icg,
    negative as negative,
    nested as nested,
    perp_neg as perp_neg,
)
from jaxguide.guidance._contrast import (
    Contrast as Contrast,
    DirectionMap as DirectionMap,
    Sides as Sides,
    Weight as Weight,
    cfg as cfg,
    contrast as contrast,
    per_sample as per_sample,
    to_columns as to_columns,
)
from jaxguide.guidance._coupled import (
    CFGpp as CFGpp,
    RectifiedCFGpp as RectifiedCFGpp,
    cfgpp as cfgpp,
    rectified_cfgpp as rectified_cfgpp,
)
from jaxguide.guidance._directions import (
    clip_norm as clip_norm,
    damp as damp,
    momentum as momentum,
    norm_power as norm_power,
    opt_scale as opt_scale,
    project as project,
    rotate as rotate,
    tangential as tangential,
    within as within,
)
from jaxguide.guidance._embedding import NoisyTime as NoisyTime, tsg as tsg
from jaxguide.guidance._energies import (
    Classifier as Classifier,
    ClassifierDenoised as ClassifierDenoised,
    classifier as classifier,
    classifier_denoised as classifier_denoised,
)
from jaxguide.guidance._evaluate import (
    Pair as Pair,
    evaluate as evaluate,
    guided_prediction as guided_prediction,
    predict_branches as predict_branches,
)
from jaxguide.guidance._faster_cache import (
    CFGCache as CFGCache,
    CFGCacheState as CFGCacheState,
    cfg_cache as cfg_cache,
)
from jaxguide.guidance._guide import (
    Guide as Guide,
    GuideState as GuideState,
    guide as guide,
)
from jaxguide.guidance._inputs import (
    BlurredInput as BlurredInput,
    Crops as Crops,
    blurred_input as blurred_input,
    crops as crops,
    sliding_window as sliding_window,
)
from jaxguide.guidance._linear_ag import (
    LinearAG as LinearAG,
    LinearAGState as LinearAGState,
    cfg_trajectories as cfg_trajectories,
    fit_linear_ag as fit_linear_ag,
    linear_ag as linear_ag,
)
from jaxguide.guidance._nag import (
    NormalisedAttention as NormalisedAttention,
    nag as nag,
)
from jaxguide.guidance._network import Network as Network
from jaxguide.guidance._networks import (
    autoguidance as autoguidance,
    interpolate_weights as interpolate_weights,
    reference_network as reference_network,
    rlg as rlg,
    sine as sine,
)
from jaxguide.guidance._nonlinear import (
    adg as adg,
    beta_cfg as beta_cfg,
    cfg_zero as cfg_zero,
    mambo_g as mambo_g,
    tcfg as tcfg,
)
from jaxguide.guidance._numbers import (
    ANY as ANY,
    NATIVE as NATIVE,
    add_scaled as add_scaled,
    pytree as pytree,
)
from jaxguide.guidance._papers import PAPERS as PAPERS, Paper as Paper
from jaxguide.guidance._plan import (
    Cost as Cost,
    Run as Run,
    cost as cost,
    make_runs as make_runs,
)
from jaxguide.guidance._post import (
    DynamicThreshold as DynamicThreshold,
    Renorm as Renorm,
    dynamic_threshold as dynamic_threshold,
    renorm as renorm,
    rescale as rescale,
)
from jaxguide.guidance._rcfg import RCFG as RCFG, RCFGState as RCFGState, rcfg as rcfg
from jaxguide.guidance._replaced import (
    GuidedChannels as GuidedChannels,
    ZeroInit as ZeroInit,
    guided_channels as guided_channels,
    zero_init as zero_init,
)
from jaxguide.guidance._s2 import DropBlocks as DropBlocks, s2 as s2
from jaxguide.guidance._sag import (
    BlurSalient as BlurSalient,
    WatchedAttention as WatchedAttention,
    sag as sag,
)
from jaxguide.guidance._self_guidance import (
    AB2 as AB2,
    AB2State as AB2State,
    SGPrevState as SGPrevState,
    Shift as Shift,
    ab2 as ab2,
    sg as sg,
    sg_prev as sg_prev,
)
from jaxguide.guidance._tfg import (
    TFG as TFG,
    energy as energy,
    tfg as tfg,
    tfg_schedule as tfg_schedule,
)
from jaxguide.guidance._transform import Transform as Transform

# Every transform: what configs, `--list`, the pages of the documentation and the tests
# of docstrings go through.
METHODS = (
    ab2,
    adaptive_guidance,
    adg,
    apg,
    apg_mix,
    autoguidance,
    beta_cfg,
    blurred_input,
    cfg,
    cfg_cache,
    cfg_zero,
    cfgpp,
    classifier,
    classifier_denoised,
    compose,
    dynamic_threshold,
    energy,
    fdg,
    frequency_cfg,
    guided_channels,
    icg,
    linear_ag,
    mambo_g,
    nag,
    negative,
    nested,
    pag,
    perp_neg,
    rcfg,
    rectified_cfgpp,
    reference_network,
    renorm,
    rescale,
    rlg,
    s2,
    sag,
    seg,
    sg,
    sg_prev,
    sine,
    sliding_window,
    stg,
    tcfg,
    tfg,
    tpg,
    tsg,
    zero_init,
)
