"""The training loop: data in, updates, numbers and pictures and checkpoints out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import jax
import optax
from clu import parameter_overview

from jaxguide import data
from jaxguide.errors import InputError
from jaxguide.runtime import hosts
from jaxguide.train import Checkpoints, parallel
from jaxguide.train.log import StepLog
from jaxguide.train.speed import Work, peak_flops
from jaxguide.train.step import Loss, TrainState, View, init_state, make_train_step
from jaxguide.train.stop import Stop

Snapshot = Callable[[int, View], None]
Evaluate = Callable[[int, View], dict[str, float]]


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
        strategy: how the state is laid out over devices.
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
    strategy: parallel.Strategy = dataclasses.field(default_factory=parallel.one_device)
    flops: float = 0.0
    meta: dict = dataclasses.field(default_factory=dict)


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
        for name in ("steps", "log_every", "save_every", "snapshot_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"LoopConfig: need {name} >= 1, got "
                    f"{name}={getattr(self, name)!r}. Choose a positive number."
                )


def run(
    experiment: Experiment,
    loop: LoopConfig,
    snapshot: Snapshot | None = None,
    evaluate: Evaluate | None = None,
    stop: Stop | None = None,
) -> TrainState:
    """Trains until `loop.steps`, or until Ctrl-C or SIGTERM; resumes by itself.

    A checkpoint is written every `loop.save_every` steps and when the run ends for
    any reason but a broken loss, so that the same command carries on later. It holds
    the parameters, their averages, the state of the optimizer, the numbers that the
    run has tuned, and the sums of the unfinished log line. Randomness and the order of
    the data are functions of seed and step and need no place in it. So on one kind of
    device a run that was killed and resumed ends with the same bits as an unbroken one.

    Args:
        experiment: what to train.
        loop: how long, how often, where to.
        snapshot: called as `snapshot(step, view)` every `loop.snapshot_every` steps
            and at the end, by the first process; must not keep `view`, whose arrays
            the next step reuses.
        evaluate: called likewise every `loop.evaluate_every` steps, by every process;
            its numbers are logged, and one named as in `view.tuned` takes effect in
            the next step.
        stop: decides when to leave early; by default this makes its own. Give one to
            learn by its `code` why the run has ended.

    Returns:
        The last state, in its saved form (`train.parallel`).

    Raises:
        FloatingPointError: if the loss or the gradient stops being finite.
        OSError: if the folder has no room or may not be written.
        InputError: if the folder holds a checkpoint of another experiment or none that
            can be read, or the batch cannot be cut over the devices.
    """
    loop.folder.mkdir(parents=True, exist_ok=True)
    strategy = experiment.strategy
    parallel.check_batch(strategy, experiment.batch_size, experiment.accumulate)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(_checkpoints(loop))
        stop = stop or stack.enter_context(Stop())
        log = stack.enter_context(closing(_step_log(experiment, loop)))
        state, start, window = _start(experiment, checkpoints)
        log.resume(start, window)
        saver = _Saver(experiment, checkpoints, log)
        train_step = _compile(experiment, state)
        read = functools.partial(_read, experiment)
        batches = stack.enter_context(data.Prefetch(read, start, loop.steps))
        try:
            for step, batch in batches:
                state, report = train_step(state, batch)
                done = step + 1
                last, leave = done == loop.steps, stop.asked(done)
                log.add(done, report, last=last)
                numbers = {}
                # Before the checkpoint: it holds the numbers, by which the best are
                # kept, and the tuned state.
                if evaluate and loop.evaluate_every and done % loop.evaluate_every == 0:
                    numbers = evaluate(done, _view(strategy, state))
                    log.write(done, numbers)
                    state = _retuned(strategy, state, numbers)
                if last or leave or done % loop.save_every == 0:
                    saver.save(done, state, numbers)
                if leave:  # without pictures: a preempted job has seconds
                    break
                if snapshot and (last or done % loop.snapshot_every == 0):
                    # Every process takes part in gathering what one of them writes.
                    view = _view(strategy, state)
                    if hosts.is_first():
                        snapshot(done, view)
                checkpoints.check()  # a full disk ends the run now, not at its end
        except Exception:  # no KeyboardInterrupt: a second Ctrl-C leaves at once
            saver.rescue(state)
            raise
    return strategy.saved(state)


def _checkpoints(loop: LoopConfig) -> Checkpoints:
    return Checkpoints(
        loop.folder / "checkpoints",
        keep=loop.keep,
        keep_best=loop.keep_best,
        best_by=loop.best_by,
    )


class _Saver:
    """Saves states, unless their loss is broken."""

    def __init__(self, experiment: Experiment, checkpoints: Checkpoints, log: StepLog):
        self._experiment, self._checkpoints, self._log = experiment, checkpoints, log

    def save(self, step: int, state: Any, numbers: dict[str, float]) -> None:
        """Starts saving `state`; `numbers` are what is known of it beside the loss."""
        self._log.check(step)
        self._checkpoints.save(
            step,
            self._experiment.strategy.saved(state),
            self._experiment.meta | {"log": self._log.window()},
            self._log.means | numbers,
        )

    def rescue(self, state: Any) -> None:
        """Saves the last whole state after an error, as far as that is possible."""
        leaves = jax.tree.leaves(state)
        # The other processes would not come to save their parts. And a step that has
        # failed has taken over the memory of the state that it was given.
        if jax.process_count() > 1 or any(leaf.is_deleted() for leaf in leaves):
            return
        with suppress(Exception):  # the first error is the one to raise
            step = int(self._experiment.strategy.saved(state).step)
            self.save(step, state, {})


def _compile(experiment: Experiment, state: Any) -> parallel.Compiled:
    """The step of this experiment on all of its devices."""
    train_step = make_train_step(
        experiment.loss,
        experiment.optimizer,
        seed=experiment.seed,
        ema=experiment.ema,
        accumulate=experiment.accumulate,
        axis=experiment.strategy.axis,
    )
    return experiment.strategy.compile(train_step, state)


def _read(experiment: Experiment, step: int) -> Any:
    """This process's share of the batch of a step, on its devices."""
    share = data.batch(
        experiment.dataset,
        step,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        flip=experiment.flip,
        share=hosts.share(),
    )
    return experiment.strategy.feed(share)


def _view(strategy: parallel.Strategy, state: Any) -> View:
    """What snapshots and evaluations see of a state."""
    saved = strategy.saved(state)
    return parallel.whole(View(saved.step, saved.averages[0], saved.tuned))


def _step_log(experiment: Experiment, loop: LoopConfig) -> StepLog:
    """The log of this run; prints what a step costs."""
    shapes = jax.eval_shape(experiment.init_params, jax.random.key(0))
    work = Work(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        flops=experiment.flops * experiment.batch_size,
        examples=experiment.batch_size,
        devices=experiment.strategy.mesh.size,
        peak=loop.peak_flops or peak_flops(jax.devices()[0].device_kind),
    )
    hosts.say(work)
    return StepLog(
        loop.folder,
        work,
        steps=loop.steps,
        every=loop.log_every,
        tensorboard=loop.tensorboard,
        silent=not hosts.is_first(),
    )


def _start(experiment: Experiment, checkpoints: Checkpoints) -> tuple[Any, int, list]:
    """The newest checkpoint or a fresh state, its updates, and its unfinished line."""
    strategy, key = experiment.strategy, jax.random.key(experiment.seed)
    make_state = functools.partial(_make_state, experiment)
    # Shapes and places only: a fresh state beside the restored one might not fit.
    like = parallel.abstract(strategy, make_state, key)
    if checkpoints.latest_step() is None:
        hosts.say(
            parameter_overview.get_parameter_overview(like.params, include_stats=False)
        )
        return parallel.init(strategy, make_state, key), 0, []
    saved, meta = checkpoints.restore(like, expect=experiment.meta)
    step = int(saved.step)
    hosts.say(f"resuming at step {step}")
    return strategy.loaded(saved), step, meta["log"]


def _make_state(experiment: Experiment, key: jax.Array) -> TrainState:
    return init_state(
        experiment.init_params(key),
        experiment.optimizer,
        averages=len(experiment.ema),
        tuned=experiment.tuned,
    )


def _retuned(
    strategy: parallel.Strategy, state: Any, numbers: dict[str, float]
) -> TrainState:
    """The state with the new values among `numbers` in `tuned`."""
    new = {name: numbers[name] for name in state.tuned if name in numbers}
    return state._replace(tuned=state.tuned | parallel.scalars(strategy, new))
