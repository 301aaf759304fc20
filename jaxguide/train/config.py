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

import jax
import optax

from jaxguide import data, models, train
from jaxguide.data.config import DataConfig
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig, Weights
from jaxguide.runtime import devices, shards, values
from jaxguide.runtime.calls import lookup
from jaxguide.sample.build import find_checkpoint
from jaxguide.train import LoopConfig, parallel
from jaxguide.train.experiment import AVERAGED, need_at_least
from jaxguide.train.loss_config import (
    INPUTS,
    LOSSES,
    REFERENCES,
    LossConfig,
    initial_params,
    teacher_passes,
)
from jaxguide.train.starting import read_alike, read_teacher

# As the command line has them, where a config has False and True.
REMAT_WORDS = {"False": "none", "True": "full"}

MOST_SHOWN = 10_000  # images of a preview


@dataclass
class ModelConfig:
    """Size of the network; what depends on the data is filled in from it.

    Args:
        patch, width, depth, heads, learn_sigma, time_scale, time_offset,
            downscale_freq_shift, mlp_ratio: see `models.DiTConfig`.
        dtype: of the computation; "auto" is bfloat16 on a GPU or TPU and float32 on a
            CPU. Parameters, averages and optimizer state are float32 in any case.
        remat: there too; on the command line False and True are words like the others.
    """

    patch: int = values.number(4, 1, 1024)
    width: int = values.number(128, 1, 65_536)
    depth: int = values.number(6, 1, 4096)
    heads: int = values.number(4, 1, 4096)
    learn_sigma: bool = False
    time_scale: float = 1000.0
    time_offset: float = 0.0
    downscale_freq_shift: float = 0.0
    mlp_ratio: int = values.number(4, 1, 256)
    dtype: str = "auto"
    remat: str = "dots"

    def __post_init__(self):
        # What a config may say, and did when there were only these two.
        if isinstance(self.remat, bool):
            self.remat = "full" if self.remat else "none"


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
        ema_warmup: let the averages begin with a short memory, min(decay,
            (1 + step) / (10 + step)); False, as published, counts from the first step.
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
    ema_warmup: bool = True
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
    preview_classes: int = values.number(10, 1, 10_000)
    preview_per_class: int = values.number(8, 1, 10_000)
    preview_autoencoder: str = ""
    evaluate_every: int = LoopConfig.evaluate_every
    evaluate_split: str = "test"
    evaluate_images: int = values.number(256, 1, 100_000)
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
    dtype = devices.computing_dtype("train model", config.model.dtype)
    remat = {"False": "none", "True": "full"}.get(
        config.model.remat, config.model.remat
    )
    settings = dataclasses.replace(config.model, dtype=dtype, remat=remat)
    model = DiTConfig(
        image_size=(height, width),
        channels=channels,
        num_classes=dataset.num_classes,
        inputs=INPUTS.get(config.loss.name, ()),
        **dataclasses.asdict(settings),
    )
    tuned = models.tuned(model, jax.default_backend(), rows=config.batch_size)
    # `remat` works on a loop over blocks.
    return dataclasses.replace(tuned, unroll=False)


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
    # Also where the loss does not use it: a wrong name is a mistake in any case.
    lookup("build_loss reference", config.reference, REFERENCES)
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


def inherited(config: TrainConfig, model: DiTConfig) -> tuple[int, str]:
    """`guided_channels` and `latents` of the weights that a run starts from, or ""."""
    start = build_start(config, model)
    if start is None and config.loss.name == "cfg_distillation":
        start = read_teacher(config.loss, model)
    return (start.guided_channels, start.latents) if start else (0, "")


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
    strategy = build_strategy(config)
    parts = strategy.mesh.size * config.accumulate
    passes = 3 + teacher_passes(
        config.loss, model, rows=config.batch_size // parts, stride=config.accumulate
    )
    return train.Experiment(
        dataset=dataset,
        init_params=initial_params(config.loss, model, build_start(config, model)),
        loss=build_loss(config.loss, model),
        optimizer=build_optimizer(config.optimizer, steps=config.steps),
        seed=config.seed,
        batch_size=config.batch_size,
        flip=config.data.flip,
        ema=tuple(config.ema),
        ema_warmup=config.ema_warmup,
        accumulate=config.accumulate,
        tuned={"weight": 0.0} if config.loss.auto_weight else {},
        strategy=strategy,
        flops=models.flops(model)[0] * passes,
        **run_facts(config),
    )


# What a resumed run may change; a change is said. Everything else of a config is what
# the run is, and must stay; of the data, the examples themselves are compared.
MAY_CHANGE = frozenset(
    {
        "accumulate",
        "best_by",
        "data.path",
        "evaluate_every",
        "evaluate_images",
        "evaluate_split",
        "folder",
        "keep",
        "keep_best",
        "log_every",
        "model.remat",
        "parallel",
        "peak_flops",
        "preview_autoencoder",
        "preview_classes",
        "preview_per_class",
        "preview_scale",
        "save_every",
        "shards",
        "snapshot_every",
        "steps",
        "tensorboard",
    }
)
# Not these where evaluations adjust the loss.
TUNING = frozenset(
    {"evaluate_every", "evaluate_images", "evaluate_split", "preview_classes"}
)


def run_facts(config: TrainConfig) -> dict[str, dict]:
    """`meta` and `settings` of an `Experiment`: what must stay, and what may change."""
    free = MAY_CHANGE - TUNING if config.loss.auto_weight else MAY_CHANGE
    facts: dict[str, dict] = {"meta": {}, "settings": {}}
    for name, value in dataclasses.asdict(config).items():
        parts = value if isinstance(value, dict) else {"": value}
        for field_name, part in parts.items():
            full = f"{name}.{field_name}" if field_name else name
            facts["settings" if full in free else "meta"][full] = part
    if config.loss.teacher:
        file = find_checkpoint(config.loss.teacher)
        facts["meta"]["loss.teacher_crc32"] = shards.crc32(file)
    return facts


def build_loop(config: TrainConfig) -> LoopConfig:
    """How long `train.run` runs, how often it reports, and where to."""
    loop: dict[str, Any] = {f.name: getattr(config, f.name) for f in fields(LoopConfig)}
    if not config.folder.strip():
        raise InputError(
            f"train: need a folder of the run, got folder={config.folder!r}. "
            "For example --config.folder=outputs/mine."
        )
    loop["folder"] = Path(config.folder).expanduser()
    _check_shown(config)
    return LoopConfig(**loop)


def _check_shown(config: TrainConfig) -> None:
    """Raises InputError unless previews, evaluations and `best_by` make sense."""
    counts = ("preview_classes", "preview_per_class", "evaluate_images")
    need_at_least("train", config, 1, *counts)
    shown = config.preview_classes * config.preview_per_class
    if shown > MOST_SHOWN:
        raise InputError(
            f"train: need at most {MOST_SHOWN} images in a preview, got "
            f"preview_classes={config.preview_classes} x "
            f"preview_per_class={config.preview_per_class}. Lower one of them."
        )
    known = (*AVERAGED, *(("eval_loss",) if config.evaluate_every else ()))
    lookup("train best_by", config.best_by, {name: name for name in known})
