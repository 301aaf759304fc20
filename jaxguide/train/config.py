"""Experiments as plain data, and the only place that turns names into objects.

A file in `configs/` has a function `get_config(arg)` that returns a `TrainConfig`;
every field can be overridden on the command line (`--config.model.width=256`). The
`build_*` functions check names and make the objects that the rest of the package
works with. What belongs to sampling stands in `jaxguide.sample`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import optax

from jaxguide import data, models, train
from jaxguide.data.config import DataConfig
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig, Weights
from jaxguide.runtime.calls import lookup
from jaxguide.sample.build import find_checkpoint
from jaxguide.train import LoopConfig, parallel
from jaxguide.train.loss_config import (
    INPUTS,
    LOSSES,
    LossConfig,
    initial_params,
    read_alike,
    teacher_passes,
)


@dataclass
class ModelConfig:
    """Size of the network; what depends on the data is filled in from it.

    Args:
        patch, width, depth, heads, learn_sigma, time_scale, dtype, remat: see
            `models.DiTConfig`.
    """

    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4
    learn_sigma: bool = False
    time_scale: float = 1000.0
    dtype: str = "float32"
    remat: bool = True


@dataclass
class OptimizerConfig:
    """AdamW; see `train.learning_rate` and `train.adamw`.

    Args:
        schedule: "constant", "cosine" or "wsd".
        peak: highest learning rate.
        warmup_steps, decay_steps: lengths of the phases.
        weight_decay: of the kernels.
        b2: decay of the second moment.
        clip: largest gradient norm; 0 does not clip.
    """

    schedule: str = "constant"
    peak: float = 1e-3
    warmup_steps: int = 100
    decay_steps: int = 0
    weight_decay: float = 0.0
    b2: float = 0.999
    clip: float = 1.0


@dataclass
class TrainConfig:
    """One training run: `python -m jaxguide.train --config configs/<name>.py`.

    Args:
        data, model, loss, optimizer: see there.
        start_from: weights to start from, a file or a name in the package; "" starts
            anew. Inputs that they do not have are added.
        folder: of the run; a run found there is resumed.
        steps: length of the run.
        batch_size: examples per step.
        seed: of everything random.
        ema: final decays of the averaged weights; the first are sampled, and teach.
        accumulate: micro-batches per update; divides the batch.
        parallel: one of `STRATEGIES`; both use all devices of all hosts.
        shards: of "fsdp": devices over which one copy of the state is cut; 0 is all.
        log_every, save_every, snapshot_every: in steps.
        keep: newest checkpoints to keep.
        keep_best, best_by: further checkpoints to keep, those with the lowest
            "eval_loss", "loss" or "grad_norm"; see `train.LoopConfig`.
        preview_scale: classifier-free guidance of the sample grids, or the scale that
            a network with such an input is given.
        preview_classes, preview_per_class: classes of the sample grids, evenly
            spread over all, and images of each.
        preview_autoencoder: file of a converted autoencoder that decodes the sample
            grids of latents; without it they are false colours.
        evaluate_every: steps between evaluations of the averaged weights; 0 is never.
        evaluate_split, evaluate_images: what they look at.
        peak_flops: FLOP/s of one device, for the utilisation; 0 looks it up.
        tensorboard: also write event files; needs the extra "tensorboard".
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    start_from: str = ""
    folder: str = "outputs/unnamed"
    steps: int = 1000
    batch_size: int = 64
    seed: int = 0
    ema: tuple[float, ...] = (0.999,)
    accumulate: int = 1
    parallel: str = "fsdp"
    shards: int = 0
    log_every: int = LoopConfig.log_every
    save_every: int = LoopConfig.save_every
    snapshot_every: int = LoopConfig.snapshot_every
    keep: int = LoopConfig.keep
    keep_best: int = LoopConfig.keep_best
    best_by: str = LoopConfig.best_by
    preview_scale: float = 2.0
    preview_classes: int = 10
    preview_per_class: int = 8
    preview_autoencoder: str = ""
    evaluate_every: int = LoopConfig.evaluate_every
    evaluate_split: str = "test"
    evaluate_images: int = 256
    peak_flops: float = LoopConfig.peak_flops
    tensorboard: bool = LoopConfig.tensorboard


def tiny(config: TrainConfig) -> TrainConfig:
    """The same experiment in seconds: a two-block network and four steps."""
    model = dataclasses.replace(config.model, width=32, depth=2, heads=2)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=1, decay_steps=0)
    return dataclasses.replace(
        config,
        model=model,
        optimizer=optimizer,
        folder=f"{config.folder}-tiny",
        steps=4,
        batch_size=8,
        log_every=2,
        save_every=2,
        snapshot_every=4,
        preview_per_class=2,
    )


def build_model(config: TrainConfig, dataset: data.Source) -> DiTConfig:
    """The architecture for images and classes like those of `dataset`."""
    height, width, channels = dataset.image_shape
    return DiTConfig(
        image_size=(height, width),
        channels=channels,
        num_classes=dataset.num_classes,
        inputs=INPUTS.get(config.loss.name, ()),
        **dataclasses.asdict(config.model),
    )


def build_loss(config: LossConfig, model: DiTConfig) -> train.Loss:
    """The loss as `(params, inputs) -> [B]`.

    Raises:
        InputError: if a name is unknown or a number out of range.
    """
    if config.auto_weight and config.name != "model_guidance":
        raise InputError(
            "build_loss: need name='model_guidance' for auto_weight, got "
            f"name={config.name!r}. Other losses have no such weight."
        )
    return lookup("build_loss", config.name, LOSSES)(config, model)


def build_start(config: TrainConfig, model: DiTConfig) -> Weights | None:
    """The weights that the config starts from.

    Raises:
        InputError: if the file is missing, or of another architecture.
    """
    if not config.start_from:
        return None
    file = str(find_checkpoint(config.start_from))
    return read_alike("train", "start_from", file, config.loss, model)


def build_optimizer(
    config: OptimizerConfig, *, steps: int
) -> optax.GradientTransformation:
    """AdamW with its learning-rate schedule over `steps`."""
    schedule = train.learning_rate(
        config.schedule,
        config.peak,
        steps=steps,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps,
    )
    return train.adamw(
        schedule,
        weight_decay=config.weight_decay,
        b2=config.b2,
        clip=config.clip or None,
    )


STRATEGIES: dict[str, Callable[[TrainConfig], parallel.Strategy]] = {
    "fsdp": lambda c: parallel.Fsdp(parallel.all_devices(), c.shards),
    "pmap": lambda c: parallel.Pmap(parallel.all_devices()),
}


def build_strategy(config: TrainConfig) -> parallel.Strategy:
    """How the state is laid out over all devices.

    Raises:
        InputError: if the name is unknown or the devices cannot be cut so.
    """
    return lookup("build_strategy", config.parallel, STRATEGIES)(config)


def build_experiment(config: TrainConfig, dataset: data.Source) -> train.Experiment:
    """What `train.run` trains."""
    model = build_model(config, dataset)
    return train.Experiment(
        dataset=dataset,
        init_params=initial_params(config.loss, model, build_start(config, model)),
        loss=build_loss(config.loss, model),
        optimizer=build_optimizer(config.optimizer, steps=config.steps),
        seed=config.seed,
        batch_size=config.batch_size,
        flip=config.data.flip,
        ema=tuple(config.ema),
        accumulate=config.accumulate,
        tuned={"weight": 0.0} if config.loss.auto_weight else {},
        strategy=build_strategy(config),
        flops=models.flops(model)[0] * (3 + teacher_passes(config.loss, model)),
        meta={
            "data": config.data.name,
            "model": dataclasses.asdict(config.model),
            "loss": dataclasses.asdict(config.loss),
            **({"start_from": config.start_from} if config.start_from else {}),
            "batch_size": config.batch_size,
            "seed": config.seed,
        },
    )


def build_loop(config: TrainConfig) -> LoopConfig:
    """How long `train.run` runs, how often it reports, and where to."""
    values: dict[str, Any] = {
        f.name: getattr(config, f.name) for f in fields(LoopConfig)
    }
    values["folder"] = Path(config.folder).expanduser()
    return LoopConfig(**values)
