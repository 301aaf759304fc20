"""The training loop: data in, updates, numbers and pictures and checkpoints out."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import parameter_overview

from jaxguide import data
from jaxguide.checkpoints import Checkpoints
from jaxguide.training.log import StepLog
from jaxguide.training.speed import Work, peak_flops
from jaxguide.training.step import (
    Loss,
    TrainState,
    init_state,
    make_train_step,
)

Snapshot = Callable[[int, TrainState], None]
Evaluate = Callable[[int, TrainState], dict[str, float]]


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
        flops: of the model per example and update; 0 means unknown.
        meta: JSON-able facts stored with every checkpoint; a run resumes only
            from a checkpoint with equal facts.
    """

    dataset: data.Source
    init_params: Callable[[jax.Array], Any]
    loss: Loss
    optimizer: optax.GradientTransformation
    seed: int = 0
    batch_size: int = 64
    flip: bool = False
    ema: tuple[float, ...] = (0.999,)
    accumulate: int = 1
    tuned: dict[str, float] = dataclasses.field(default_factory=dict)
    flops: float = 0.0
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
        evaluate_every: steps between evaluations; 0 is never.
        tensorboard: also write event files.
        peak_flops: FLOP/s of one device; 0 takes it from a table of known devices.
    """

    folder: Path
    steps: int
    log_every: int = 50
    save_every: int = 1000
    snapshot_every: int = 1000
    keep: int = 2
    evaluate_every: int = 0
    tensorboard: bool = False
    peak_flops: float = 0.0

    def __post_init__(self):
        for name in ("steps", "log_every", "save_every", "snapshot_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"LoopConfig: need {name} >= 1, got "
                    f"{name}={getattr(self, name)!r}. Choose a positive number."
                )


def run(
    experiment: Experiment,
    loop: LoopConfig,
    snapshot: Snapshot | None = None,
    evaluate: Evaluate | None = None,
) -> TrainState:
    """Trains until `loop.steps`, or until Ctrl-C or SIGTERM; resumes by itself.

    A checkpoint is written every `loop.save_every` steps and when the run ends for
    any reason but a broken loss, so that the same command carries on later.

    Args:
        experiment: what to train.
        loop: how long, how often, where to.
        snapshot: called as `snapshot(step, state)` every `loop.snapshot_every` steps
            and at the end; must not keep `state`, whose arrays the next step reuses.
        evaluate: called likewise every `loop.evaluate_every` steps; its numbers are
            logged, and one named as in `state.tuned` takes effect in the next step.

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
        log = stack.enter_context(closing(_step_log(experiment, loop)))
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
            if evaluate and loop.evaluate_every and done % loop.evaluate_every == 0:
                numbers = evaluate(done, state)
                log.write(done, numbers)
                state = state._replace(tuned=_retuned(state.tuned, numbers))
            if last or done % loop.save_every == 0:
                checkpoints.save(done, state, experiment.meta)
            if snapshot and (last or done % loop.snapshot_every == 0):
                snapshot(done, state)
            if last:
                break
    return state


def _step_log(experiment: Experiment, loop: LoopConfig) -> StepLog:
    """The log of this run; prints what a step costs."""
    shapes = jax.eval_shape(experiment.init_params, jax.random.key(0))
    work = Work(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        flops=experiment.flops * experiment.batch_size,
        examples=experiment.batch_size,
        devices=jax.device_count(),
        peak=loop.peak_flops or peak_flops(jax.devices()[0].device_kind),
    )
    print(work)
    return StepLog(
        loop.folder,
        work,
        steps=loop.steps,
        every=loop.log_every,
        tensorboard=loop.tensorboard,
    )


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


def _retuned(
    tuned: dict[str, jax.Array], numbers: dict[str, float]
) -> dict[str, jax.Array]:
    """`tuned` with the new values among `numbers`, placed as the old ones."""

    def value(name: str, old: jax.Array) -> jax.Array:
        new = jnp.full(old.shape, numbers.get(name, old), old.dtype)
        return jax.device_put(new, old.sharding) if name in numbers else old

    return {name: value(name, old) for name, old in tuned.items()}


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
