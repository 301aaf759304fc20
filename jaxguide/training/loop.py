"""The training loop: data in, updates, numbers and pictures and checkpoints out."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import optax
from clu import metrics, parameter_overview

from jaxguide import data
from jaxguide.checkpoints import Checkpoints
from jaxguide.training.log import JsonlWriter, ProgressLine, TensorBoardWriter, Writer
from jaxguide.training.step import (
    Loss,
    TrainMetrics,
    TrainState,
    init_state,
    make_train_step,
)

Snapshot = Callable[[int, TrainState], None]


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
        accumulate: micro-batches per update.
        tuned: first values of the numbers that the run adjusts itself.
        meta: JSON-able facts stored with every checkpoint; a run resumes only
            from a checkpoint with equal facts.
    """

    dataset: data.Dataset
    init_params: Callable[[jax.Array], Any]
    loss: Loss
    optimizer: optax.GradientTransformation
    seed: int = 0
    batch_size: int = 64
    flip: bool = False
    ema: tuple[float, ...] = (0.999,)
    accumulate: int = 1
    tuned: dict[str, float] = dataclasses.field(default_factory=dict)
    meta: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long, how often, and where to.

    Args:
        folder: of the run: metrics.jsonl, checkpoints/, and what snapshots write.
        steps: length of the run, >= 1.
        log_every: steps between log lines; the loss is checked there.
        save_every: steps between checkpoints.
        snapshot_every: steps between snapshots (sample grids, exported weights).
        keep: newest checkpoints to keep.
        tensorboard: also write event files.
    """

    folder: Path
    steps: int
    log_every: int = 50
    save_every: int = 1000
    snapshot_every: int = 1000
    keep: int = 2
    tensorboard: bool = False

    def __post_init__(self):
        for name in ("steps", "log_every", "save_every", "snapshot_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"LoopConfig: need {name} >= 1, got "
                    f"{name}={getattr(self, name)!r}. Choose a positive number."
                )


def run(
    experiment: Experiment, loop: LoopConfig, snapshot: Snapshot | None = None
) -> TrainState:
    """Trains until `loop.steps`, or until Ctrl-C or SIGTERM; resumes by itself.

    A checkpoint is written every `loop.save_every` steps and when the run ends for
    any reason but a broken loss, so that the same command carries on later.

    Args:
        experiment: what to train.
        loop: how long, how often, where to.
        snapshot: called as `snapshot(step, state)` every `loop.snapshot_every` steps
            and at the end; must not keep `state`, whose arrays the next step reuses.

    Returns:
        The last state.

    Raises:
        FloatingPointError: if the loss stops being finite.
        ValueError: if the folder holds a checkpoint of another experiment.
    """
    loop.folder.mkdir(parents=True, exist_ok=True)
    train_step = jax.jit(
        make_train_step(
            experiment.loss,
            experiment.optimizer,
            seed=experiment.seed,
            ema=experiment.ema,
            accumulate=experiment.accumulate,
        ),
        donate_argnums=0,
    )
    with ExitStack() as stack:
        checkpoints = stack.enter_context(
            Checkpoints(loop.folder / "checkpoints", keep=loop.keep)
        )
        stopped = stack.enter_context(_stop_signals())
        log = stack.enter_context(closing(_Log(_writers(loop), loop, experiment)))
        state = _start(experiment, checkpoints)
        for step in range(int(state.step), loop.steps):
            batch = data.batch(
                experiment.dataset,
                step,
                batch_size=experiment.batch_size,
                seed=experiment.seed,
                flip=experiment.flip,
            )
            state, report = train_step(state, batch)
            done = step + 1
            last = done == loop.steps or stopped.is_set()
            log.add(done, report, flush=last)
            if last or done % loop.save_every == 0:
                checkpoints.save(done, state, experiment.meta)
            if snapshot and (last or done % loop.snapshot_every == 0):
                snapshot(done, state)
            if last:
                break
    return state


def _start(experiment: Experiment, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint, or a fresh state."""
    key = jax.random.key(experiment.seed)
    params = jax.jit(experiment.init_params)(key)
    state = init_state(
        params,
        experiment.optimizer,
        averages=len(experiment.ema),
        tuned=experiment.tuned,
    )
    if checkpoints.latest_step() is None:
        print(parameter_overview.get_parameter_overview(params, include_stats=False))
        return state
    state, meta = checkpoints.restore(state)
    for name, value in experiment.meta.items():
        if meta.get(name) != value:
            raise ValueError(
                f"run: need the {name} of the checkpoint at step {int(state.step)}, "
                f"got {name}={value!r} instead of {meta.get(name)!r}. "
                "Use another folder, or undo the change."
            )
    print(f"resuming at step {int(state.step)}")
    return state


def _writers(loop: LoopConfig) -> list[Writer]:
    writers: list[Writer] = [ProgressLine(loop.steps)]
    writers.append(JsonlWriter(loop.folder / "metrics.jsonl"))
    if loop.tensorboard:
        writers.append(TensorBoardWriter(loop.folder / "tensorboard"))
    return writers


class _Log:
    """Averages metrics between log lines, and times them."""

    def __init__(self, writers: list[Writer], loop: LoopConfig, experiment: Experiment):
        self._writers = writers
        self._loop = loop
        self._batch_size = experiment.batch_size
        self._total = TrainMetrics.empty()
        self._count = 0
        self._since = time.monotonic()

    def add(self, step: int, report: metrics.Collection, *, flush: bool) -> None:
        """Takes one step's metrics; writes them out when a line is due."""
        self._total = self._total.merge(report)
        self._count += 1
        if not flush and step % self._loop.log_every:
            return
        numbers = {name: float(v) for name, v in self._total.compute().items()}
        if not math.isfinite(numbers["loss"]):
            raise FloatingPointError(
                f"run: need a finite loss, got loss={numbers['loss']!r} at step "
                f"{step}. Lower the learning rate or clip the gradient."
            )
        now = time.monotonic()
        rate = self._count / max(now - self._since, 1e-9)
        numbers["images_per_second"] = rate * self._batch_size
        numbers["seconds_left"] = (self._loop.steps - step) / rate
        for writer in self._writers:
            writer.write(step, numbers)
        self._total, self._count, self._since = TrainMetrics.empty(), 0, now

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the loop then saves and leaves."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: stopped.set()) for name in names]
    try:
        yield stopped
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
