"""Training losses as pure functions of a network, a batch and a key, one value each.

    loss(predict, batch, key, ...) -> [B]
    loss(predict, teacher, batch, key, ...) -> [B]

`predict(x, t, label, **inputs)` is a network with its parameters already filled in;
`x` is [B, H, W, C], `t` [B] noise time in [0, 1] (1 = noise), `label` int32 [B]. A
`teacher` is the same network with averaged parameters.
"""

from jaxguide.losses.auto_weight import (
    auto_weight as auto_weight,
    best_scale as best_scale,
    next_weight as next_weight,
    trial_scales as trial_scales,
)
from jaxguide.losses.base import (
    Batch as Batch,
    Noisy as Noisy,
    Predict as Predict,
    check_weighting as check_weighting,
    corrupt as corrupt,
    drop_labels as drop_labels,
    squared_error as squared_error,
)
from jaxguide.losses.ddpm import ddpm_hybrid as ddpm_hybrid
from jaxguide.losses.distillation import (
    GuidedStates as GuidedStates,
    adapter_distillation as adapter_distillation,
    cfg_distillation as cfg_distillation,
)
from jaxguide.losses.draws import (
    Draws as Draws,
    TimeSampling as TimeSampling,
    draws as draws,
    logit_normal_t as logit_normal_t,
    stratified_t as stratified_t,
    uniform_t as uniform_t,
)
from jaxguide.losses.flow import flow_matching as flow_matching
from jaxguide.losses.gft import gft as gft
from jaxguide.losses.inputs import inputs_at as inputs_at
from jaxguide.losses.mean_flow import mean_flow as mean_flow
from jaxguide.losses.model_guidance import (
    model_guidance as model_guidance,
    scale_aware_model_guidance as scale_aware_model_guidance,
)
from jaxguide.losses.references import (
    Reference as Reference,
    mean_class as mean_class,
    null_class as null_class,
    other_class as other_class,
)
