"""Losses as plain data: the names of paths, time sampling and losses.

`LOSSES` is the only place that turns the name of a loss into a function of parameters.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxguide import losses, models, paths, training
from jaxguide.models import DiTConfig
from jaxguide.names import lookup

PATHS = {
    "linear": paths.Linear,
    "gvp": paths.GVP,
    "vp": paths.VP,
    "ddpm": paths.DDPM,
    "edm": paths.EDM,
}
TIME_SAMPLING: dict[str, Callable[[], losses.TimeSampling]] = {
    "uniform": lambda: losses.uniform_t,
    "stratified": lambda: losses.stratified_t,
    "logit_normal": losses.logit_normal_t,
    "logit_normal_stratified": lambda: losses.logit_normal_t(base=losses.stratified_t),
}


@dataclass
class LossConfig:
    """What the network learns.

    Args:
        name: one of `LOSSES`.
        path: one of `PATHS`.
        kind: one of `paths.KINDS`.
        label_drop: probability that a label is hidden.
        t_sampling: one of `TIME_SAMPLING`.
        weight: of Model-Guidance, in [0, 1); the learnt scale is 1 / (1 - weight).
        reference: of Model-Guidance: one of `REFERENCES`.
        scales: range of the scale input of losses that have one.
        guided_share: of scale-aware Model-Guidance.
        t_lo, t_hi: noise times that Model-Guidance guides.
        start_step: updates before Model-Guidance starts.
    """

    name: str = "flow_matching"
    path: str = "linear"
    kind: str = "velocity"
    label_drop: float = 0.1
    t_sampling: str = "uniform"
    weight: float = 0.45
    reference: str = "null"
    scales: tuple[float, float] = (1.0, 2.0)
    guided_share: float = 0.2
    t_lo: float = 0.0
    t_hi: float = 0.75
    start_step: int = 0


def _common(config: LossConfig, model: DiTConfig) -> dict[str, Any]:
    """The arguments that every loss has."""
    paths.check_kind("build_loss", config.kind)
    return dict(
        path=lookup("build_loss", config.path, PATHS)(),
        kind=config.kind,
        label_drop=config.label_drop,
        null_label=model.null_label,
        t_sampling=lookup("build_loss", config.t_sampling, TIME_SAMPLING)(),
    )


def _predict(model: DiTConfig, params: Any) -> losses.Predict:
    """The network as `(x, t, label, **numbers) -> prediction`."""

    def predict(x: Array, t: Array, label: Array, **numbers: Array) -> Array:
        return models.apply(model, params, x, t, label, numbers=numbers)

    return predict


def _flow_matching(config: LossConfig, model: DiTConfig) -> training.Loss:
    loss = functools.partial(losses.flow_matching, **_common(config, model))

    def with_params(params: Any, inputs: training.Inputs) -> Array:
        return loss(_predict(model, params), inputs.batch, inputs.draws)

    return with_params


REFERENCES: dict[str, Callable[[DiTConfig], losses.Reference]] = {
    "null": lambda model: losses.null_class(model.null_label),
    "other": lambda model: losses.other_class(model.num_classes),
    "mean": lambda model: losses.mean_class(model.num_classes),
}


def _started(config: LossConfig, step: Array) -> float | Array:
    """1 once guidance has started; a plain number where that is from the beginning."""
    if not config.start_step:
        return 1.0
    return (step >= config.start_step).astype(jnp.float32)


def _model_guidance(config: LossConfig, model: DiTConfig) -> training.Loss:
    reference = lookup("build_loss", config.reference, REFERENCES)(model)
    loss = functools.partial(
        losses.model_guidance,
        t_lo=config.t_lo,
        t_hi=config.t_hi,
        reference=reference,
        **_common(config, model),
    )

    def with_params(params: Any, inputs: training.Inputs) -> Array:
        weight = inputs.tuned.get("weight", config.weight)
        return loss(
            _predict(model, params),
            _predict(model, inputs.teacher),
            inputs.batch,
            inputs.draws,
            weight=weight * _started(config, inputs.step),
        )

    return with_params


def _scale_aware(config: LossConfig, model: DiTConfig) -> training.Loss:
    loss = functools.partial(
        losses.scale_aware_model_guidance,
        scales=tuple(config.scales),
        guided_share=config.guided_share,
        t_lo=config.t_lo,
        t_hi=config.t_hi,
        **_common(config, model),
    )

    def with_params(params: Any, inputs: training.Inputs) -> Array:
        return loss(
            _predict(model, params),
            _predict(model, inputs.teacher),
            inputs.batch,
            inputs.draws,
            start=_started(config, inputs.step),
        )

    return with_params


LOSSES: dict[str, Callable[[LossConfig, DiTConfig], training.Loss]] = {
    "flow_matching": _flow_matching,
    "model_guidance": _model_guidance,
    "scale_aware_model_guidance": _scale_aware,
}

# Numbers that a network must take as inputs to be trained with a loss.
INPUTS: dict[str, tuple[str, ...]] = {"scale_aware_model_guidance": ("scale",)}

# Forward passes of a teacher per update, beside the network's own three.
TEACHER_PASSES = {"model_guidance": 2, "scale_aware_model_guidance": 2}


def teacher_passes(config: LossConfig, model: DiTConfig) -> int:
    """Forward passes without gradient per update, once guidance has started."""
    if config.name == "model_guidance" and config.reference == "mean":
        return 1 + model.num_classes
    return TEACHER_PASSES.get(config.name, 0)
