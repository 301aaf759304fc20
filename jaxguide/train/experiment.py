"""What a run trains, and for how long: ready-made objects, checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxguide import data
from jaxguide.errors import InputError
from jaxguide.train import identity, parallel
from jaxguide.train.step import Loss

# JAX would take a larger seed for its lowest 32 bits.
SEEDS = 2**32
# Numbers that every checkpoint has.
AVERAGED = ("loss", "grad_norm")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is trained, as ready-made objects; `config.build_experiment` makes one.

    Args:
        dataset: examples.
        init_params: `key -> params`.
        loss: `(params, inputs) -> [B]`.
        optimizer: from optax.
        seed: of the initial weights, the order of the data and the noise.
        batch_size: examples per step.
        flip: mirror images at random.
        ema: final decays of the averaged weights; the first are sampled, and teach.
        ema_warmup: let the averages begin with a short memory; see `ema_decay`.
        accumulate: micro-batches per update.
        tuned: first values of the numbers that the run adjusts itself.
        strategy: how the state is laid out over devices.
        flops: of the model per example and update; 0 means unknown.
        meta: JSON-able facts stored with every checkpoint; a run resumes only from a
            checkpoint with equal facts. `facts` adds those that are seen here.
        settings: JSON-able facts stored likewise that may change; a change is said.

    Raises:
        InputError: if a number is out of range.
    """

    dataset: data.Source
    init_params: Callable[[jax.Array], Any]
    loss: Loss
    optimizer: optax.GradientTransformation
    seed: int = 0
    batch_size: int = 64
    flip: bool = False
    ema: tuple[float, ...] = (0.999,)
    ema_warmup: bool = True
    accumulate: int = 1
    tuned: dict[str, float] = dataclasses.field(default_factory=dict)
    strategy: parallel.Strategy = dataclasses.field(default_factory=parallel.one_device)
    flops: float = 0.0
    meta: dict = dataclasses.field(default_factory=dict)
    settings: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        need_at_least("Experiment", self, 1, "batch_size", "accumulate")
        need_at_least("Experiment", self, 0.0, "flops")
        if not 0 <= self.seed < SEEDS:
            raise InputError(
                f"Experiment: need 0 <= seed < 2**32, got seed={self.seed!r}. "
                "Choose a smaller number."
            )
        decays = [d for d in self.ema if isinstance(d, int | float) and 0 <= d < 1]
        if not decays or len(decays) < len(self.ema):
            raise InputError(
                "Experiment: need one decay or more with 0 <= ema < 1, got "
                f"ema={self.ema!r}. (0.999,) is common."
            )

    def facts(self) -> dict:
        """`meta`, and what a resumed run must share besides, the data among it."""
        described = identity.describe(self.dataset)
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "data.flip": self.flip,
            "ema": list(self.ema),
            "ema_warmup": self.ema_warmup,
            **{f"data.{name}": value for name, value in described.items()},
            **self.meta,
        }


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long, how often, and where to.

    Args:
        folder: of the run: metrics.jsonl, checkpoints/, and what snapshots write.
        steps: length of the run, >= 1.
        log_every: steps between log lines; the loss is checked there, and before a
            state is saved.
        save_every: steps between checkpoints.
        snapshot_every: steps between snapshots (sample grids, exported weights).
        keep: newest checkpoints to keep; with 1 there is none to go back to if it
            is damaged.
        keep_best: further checkpoints to keep, those with the lowest `best_by`.
        best_by: a number of the evaluation, or "loss" or "grad_norm", which are
            averages since the last log line.
        evaluate_every: steps between evaluations; 0 is never.
        tensorboard: also write event files.
        peak_flops: FLOP/s of one device; 0 takes it from a table of known devices.

    Raises:
        InputError: if a number is out of range.
    """

    folder: Path
    steps: int
    log_every: int = 50
    save_every: int = 1000
    snapshot_every: int = 1000
    keep: int = 2
    keep_best: int = 0
    best_by: str = "loss"
    evaluate_every: int = 0
    tensorboard: bool = False
    peak_flops: float = 0.0

    def __post_init__(self):
        positive = ("steps", "log_every", "save_every", "snapshot_every", "keep")
        need_at_least("LoopConfig", self, 1, *positive)
        need_at_least("LoopConfig", self, 0, "keep_best", "evaluate_every")
        need_at_least("LoopConfig", self, 0.0, "peak_flops")
        if self.keep_best and not (self.evaluate_every or self.best_by in AVERAGED):
            raise InputError(
                f"LoopConfig: need best_by in {AVERAGED} without evaluations, got "
                f"best_by={self.best_by!r}. Set evaluate_every."
            )


def need_at_least(owner: str, holder: Any, least: float, *names: str) -> None:
    """Raises InputError unless these fields are finite numbers and not below `least`.

    Counts, where `least` is an int, must be whole numbers.
    """
    for name in names:
        value = getattr(holder, name)
        whole = isinstance(least, int)
        kinds = (int, np.integer) if whole else (int, float, np.number)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not (fits and math.isfinite(value) and value >= least):
            raise InputError(
                f"{owner}: need {name} >= {least:g}, got {name}={value!r}. Choose a "
                f"{'whole' if whole else 'finite'} number."
            )
