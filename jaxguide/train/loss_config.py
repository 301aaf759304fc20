"""Losses as plain data: the names of paths, time sampling and losses.

`LOSSES` is the only place that turns the name of a loss into a function of parameters.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxguide import losses, models, paths, train
from jaxguide.errors import InputError
from jaxguide.losses.mean_flow import few_move
from jaxguide.losses.rows import share_of_rows
from jaxguide.models import DiTConfig, Weights
from jaxguide.runtime.calls import lookup
from jaxguide.train.starting import read_teacher

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
        weighting: of `flow_matching` for noise and score: "none", "velocity" or
            "likelihood" (SiT's).
        label_drop: probability that a label is hidden.
        t_sampling: one of `TIME_SAMPLING`.
        weight: of Model-Guidance, in [0, 1); the learnt scale is 1 / (1 - weight).
        auto_weight: let evaluations adjust the weight, from 0 on; see
            `losses.auto_weight`.
        reference: of Model-Guidance: one of `REFERENCES`.
        scales: range of the scale input of losses that have one.
        guided_share: of scale-aware Model-Guidance.
        t_lo, t_hi: noise times that Model-Guidance and MeanFlow guide.
        start_step: updates before Model-Guidance starts.
        omega, kappa: of MeanFlow; the learnt scale is omega / (1 - kappa).
        flow_ratio: of MeanFlow: probability of a stretch of no length.
        teacher: of distillation: a weights file of the same architecture.
    """

    name: str = "flow_matching"
    path: str = "linear"
    kind: str = "velocity"
    weighting: str = "none"
    label_drop: float = 0.1
    t_sampling: str = "uniform"
    weight: float = 0.45
    auto_weight: bool = False
    reference: str = "null"
    scales: tuple[float, float] = (1.0, 2.0)
    guided_share: float = 0.2
    t_lo: float = 0.0
    t_hi: float = 0.75
    start_step: int = 0
    omega: float = 1.0
    kappa: float = 0.0
    flow_ratio: float = 0.75
    teacher: str = ""


def _common(config: LossConfig, model: DiTConfig) -> dict[str, Any]:
    """The arguments that every loss has."""
    paths.check_kind("build_loss", config.kind)
    return dict(
        path=lookup("build_loss", config.path, paths.PATHS)(),
        kind=config.kind,
        label_drop=config.label_drop,
        null_label=model.null_label,
        t_sampling=lookup("build_loss", config.t_sampling, TIME_SAMPLING)(),
    )


def _predict(model: DiTConfig, params: Any) -> losses.Predict:
    """The network as `(x, t, label, **numbers) -> prediction`.

    A variance that it predicts besides is passed over, as SiT's is in the published
    code; `ddpm_hybrid` alone learns it.
    """
    network = models.Predictor(model)
    if not model.learn_sigma:
        return functools.partial(network, params)
    return lambda *arguments, **numbers: network(params, *arguments, **numbers)[0]


def _alone(loss: Callable[..., Array], model: DiTConfig) -> train.Loss:
    """A loss that has no teacher."""

    def with_params(params: Any, inputs: train.Inputs) -> Array:
        return loss(_predict(model, params), inputs.batch, inputs.draws)

    return with_params


def _flow_matching(config: LossConfig, model: DiTConfig) -> train.Loss:
    options = _common(config, model)
    losses.check_weighting("build_loss", config.kind, config.weighting)
    loss = functools.partial(
        losses.flow_matching, weighting=config.weighting, **options
    )
    return _alone(loss, model)


def _gft(config: LossConfig, model: DiTConfig) -> train.Loss:
    loss = functools.partial(losses.gft, **_common(config, model))
    return _alone(loss, model)


def _ddpm_hybrid(config: LossConfig, model: DiTConfig) -> train.Loss:
    options = _common(config, model)
    _need("path", config.path, "ddpm")
    _need("kind", options.pop("kind"), "noise")
    if not model.learn_sigma:
        raise InputError(
            "ddpm_hybrid: need a network with learned variance, got "
            "learn_sigma=False. Set model.learn_sigma=True."
        )
    loss = functools.partial(losses.ddpm_hybrid, **options)

    def with_params(params: Any, inputs: train.Inputs) -> Array:
        both = functools.partial(models.Predictor(model), params)
        return loss(both, inputs.batch, inputs.draws)

    return with_params


def _mean_flow(config: LossConfig, model: DiTConfig) -> train.Loss:
    _check_guided(config)
    options = _common(config, model)
    _need("kind", options.pop("kind"), "velocity")
    loss = functools.partial(
        losses.mean_flow,
        omega=config.omega,
        kappa=config.kappa,
        t_lo=config.t_lo,
        t_hi=config.t_hi,
        flow_ratio=config.flow_ratio,
        **options,
    )
    return _alone(loss, model)


def _need(name: str, value: str, wanted: str) -> None:
    if value != wanted:
        raise InputError(
            f"build_loss: need {name}={wanted!r} for this loss, got {name}={value!r}. "
            f"Set loss.{name}={wanted}."
        )


def _cfg_distillation(config: LossConfig, model: DiTConfig) -> train.Loss:
    options = _common(config, model)
    del options["kind"], options["label_drop"]
    frozen = read_teacher(config, model)
    loss = functools.partial(
        losses.cfg_distillation, scales=tuple(config.scales), **options
    )

    def with_params(params: Any, inputs: train.Inputs) -> Array:
        teacher = _predict(frozen.model, frozen.params)
        return loss(_predict(model, params), teacher, inputs.batch, inputs.draws)

    return with_params


def initial_params(
    config: LossConfig, model: DiTConfig, start: Weights | None = None
) -> Callable[[Array], models.Params]:
    """`key -> params` to start from: fresh, or those of `start` or of the teacher of a
    distillation, with fresh ones for the inputs that these do not have."""
    if start is None and config.name == "cfg_distillation":
        start = read_teacher(config, model)
    if start is None:
        return functools.partial(models.init, model)
    return lambda key: models.init(model, key) | start.params


REFERENCES: dict[str, Callable[[DiTConfig], losses.Reference]] = {
    "null": lambda model: losses.null_class(model.null_label),
    "other": lambda model: losses.other_class(model.num_classes),
    "mean": lambda model: losses.mean_class(model.num_classes),
}


def _check_guided(config: LossConfig) -> None:
    """Raises InputError unless the guided times, and the start, are some."""
    if not 0 <= config.t_lo < config.t_hi <= 1:
        raise InputError(
            "build_loss: need 0 <= t_lo < t_hi <= 1, got "
            f"t_lo={config.t_lo!r}, t_hi={config.t_hi!r}. Noise time 1 is noise."
        )
    if config.start_step < 0:
        raise InputError(
            f"build_loss: need start_step >= 0, got start_step={config.start_step!r}. "
            "0 guides from the beginning."
        )


def _started(config: LossConfig, step: Array) -> float | Array:
    """1 once guidance has started; a plain number where that is from the beginning."""
    if not config.start_step:
        return 1.0
    return (step >= config.start_step).astype(jnp.float32)


def _model_guidance(config: LossConfig, model: DiTConfig) -> train.Loss:
    _check_guided(config)
    reference = lookup("build_loss", config.reference, REFERENCES)(model)
    loss = functools.partial(
        losses.model_guidance,
        t_lo=config.t_lo,
        t_hi=config.t_hi,
        reference=reference,
        **_common(config, model),
    )

    def with_params(params: Any, inputs: train.Inputs) -> Array:
        weight = inputs.tuned.get("weight", config.weight)
        return loss(
            _predict(model, params),
            _predict(model, inputs.teacher),
            inputs.batch,
            inputs.draws,
            weight=weight * _started(config, inputs.step),
        )

    return with_params


def _scale_aware(config: LossConfig, model: DiTConfig) -> train.Loss:
    _check_guided(config)
    loss = functools.partial(
        losses.scale_aware_model_guidance,
        scales=tuple(config.scales),
        guided_share=config.guided_share,
        t_lo=config.t_lo,
        t_hi=config.t_hi,
        **_common(config, model),
    )

    def with_params(params: Any, inputs: train.Inputs) -> Array:
        return loss(
            _predict(model, params),
            _predict(model, inputs.teacher),
            inputs.batch,
            inputs.draws,
            start=_started(config, inputs.step),
        )

    return with_params


LOSSES: dict[str, Callable[[LossConfig, DiTConfig], train.Loss]] = {
    "cfg_distillation": _cfg_distillation,
    "ddpm_hybrid": _ddpm_hybrid,
    "flow_matching": _flow_matching,
    "gft": _gft,
    "mean_flow": _mean_flow,
    "model_guidance": _model_guidance,
    "scale_aware_model_guidance": _scale_aware,
}

# Numbers that a network must take as inputs to be trained with a loss.
INPUTS: dict[str, tuple[str, ...]] = {
    "cfg_distillation": ("scale",),
    "gft": ("beta",),
    "mean_flow": ("duration",),
    "scale_aware_model_guidance": ("scale",),
}

# Forward passes without gradient over the whole batch per update, beside the network's
# own three.
TEACHER_PASSES = {"cfg_distillation": 2, "gft": 1, "model_guidance": 2}


def teacher_passes(
    config: LossConfig, model: DiTConfig, *, rows: int = 0, stride: int = 1
) -> float:
    """Forward passes without gradient per update, once guidance has started.

    Args:
        config, model: what is trained.
        rows: of the batch that one device computes at a time; 0 means very many. A
            teacher that only some rows need runs on the most that can need it.
        stride: micro-batches per update, which deal out the rows in turn.

    Returns:
        Passes over the whole batch. One of MeanFlow's is a derivative along the flow.
    """
    if config.name == "model_guidance" and config.reference == "mean":
        return 1 + model.num_classes
    if config.name == "scale_aware_model_guidance":
        return 2 * share_of_rows(rows, config.guided_share, stride)
    if config.name == "mean_flow":
        guided = config.omega != 1 or config.kappa != 0
        more = guided * (1 + (config.kappa != 0))
        if not few_move(config.flow_ratio):
            return more + 1
        return more + 2 * share_of_rows(rows, 1 - config.flow_ratio, stride)
    return TEACHER_PASSES.get(config.name, 0)
