"""The training loop: data in, updates, numbers and pictures and checkpoints out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

import jax
from clu import parameter_overview

from jaxguide import data
from jaxguide.runtime import hosts
from jaxguide.train import Checkpoints, checks, parallel
from jaxguide.train.checkpoints.facts import SETTINGS, remarks
from jaxguide.train.experiment import Experiment, LoopConfig
from jaxguide.train.lock import Lock
from jaxguide.train.log import StepLog
from jaxguide.train.speed import Work, peak_flops
from jaxguide.train.step import TrainState, View, make_train_step
from jaxguide.train.stop import Stop

Snapshot = Callable[[int, View], None]
Evaluate = Callable[[int, View], dict[str, float]]


def run(
    experiment: Experiment,
    loop: LoopConfig,
    snapshot: Snapshot | None = None,
    evaluate: Evaluate | None = None,
    stop: Stop | None = None,
    accepted: Callable[[], None] | None = None,
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
        accepted: called by the first process when all is checked, before the first
            step. A run that is refused before that has changed nothing in the folder.

    Returns:
        The last state, in its saved form (`train.parallel`).

    Raises:
        FloatingPointError: if the loss or the gradient stops being finite.
        OSError: if the folder has no room or may not be written.
        InputError: if the folder holds a checkpoint of another experiment or none that
            can be read, another run is there, the loss or the data refuse, or the batch
            cannot be cut over the devices.
    """
    strategy = experiment.strategy
    with ExitStack() as stack:
        stop = stop or stack.enter_context(Stop())
        facts = checks.before_writing(experiment, loop)
        if hosts.is_first():
            stack.enter_context(Lock(loop.folder))
        work = _work(experiment, loop)
        checkpoints = stack.enter_context(_checkpoints(loop))
        state, start, window = _start(experiment, facts, checkpoints)
        if accepted and hosts.is_first():
            accepted()
        log = stack.enter_context(closing(_step_log(work, loop)))
        log.resume(start, window)
        saver = _Saver(experiment, facts, checkpoints, log)
        train_step = _compile(experiment, state)
        read = functools.partial(_read, experiment)
        batches = stack.enter_context(data.Prefetch(read, start, loop.steps))
        try:
            for step, batch in batches:
                if step == start and stop.before_first():
                    break
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
                    _show(snapshot, done, _view(strategy, state))
                checkpoints.check()  # a full disk ends the run now, not at its end
        except Exception:  # no KeyboardInterrupt: a second Ctrl-C leaves at once
            saver.rescue(state)
            raise
    return strategy.saved(state)


def _show(snapshot: Snapshot, step: int, view: View) -> None:
    """Every process takes part in gathering the view; one of them shows it."""
    if hosts.is_first():
        snapshot(step, view)


def _checkpoints(loop: LoopConfig) -> Checkpoints:
    return Checkpoints(
        loop.folder / "checkpoints",
        keep=loop.keep,
        keep_best=loop.keep_best,
        best_by=loop.best_by,
    )


class _Saver:
    """Saves states, unless their loss is broken."""

    def __init__(
        self,
        experiment: Experiment,
        facts: dict,
        checkpoints: Checkpoints,
        log: StepLog,
    ):
        self._strategy, self._checkpoints, self._log = (
            experiment.strategy,
            checkpoints,
            log,
        )
        self._facts = facts | {SETTINGS: experiment.settings}

    def save(self, step: int, state: Any, numbers: dict[str, float]) -> None:
        """Starts saving `state`; `numbers` are what is known of it beside the loss."""
        self._log.check(step)
        self._checkpoints.save(
            step,
            self._strategy.saved(state),
            self._facts | {"log": self._log.window()},
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
            step = int(self._strategy.saved(state).step)
            if step:  # what has not made a step is no run to carry on with
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
        ema_warmup=experiment.ema_warmup,
    )
    return experiment.strategy.compile(train_step, state)


def _read(experiment: Experiment, step: int) -> Any:
    """This process's share of the batch of a step, on its devices."""
    return experiment.strategy.feed(checks.read_share(experiment, step))


def _view(strategy: parallel.Strategy, state: Any) -> View:
    """What snapshots and evaluations see of a state."""
    saved = strategy.saved(state)
    return parallel.whole(View(saved.step, saved.averages[0], saved.tuned))


def _work(experiment: Experiment, loop: LoopConfig) -> Work:
    """What a step costs; prints it."""
    shapes = jax.eval_shape(experiment.init_params, jax.random.key(0))
    work = Work(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        flops=experiment.flops * experiment.batch_size,
        examples=experiment.batch_size,
        devices=experiment.strategy.mesh.size,
        peak=loop.peak_flops or peak_flops(jax.devices()[0].device_kind),
    )
    hosts.say(work)
    return work


def _step_log(work: Work, loop: LoopConfig) -> StepLog:
    """The log of this run."""
    return StepLog(
        loop.folder,
        work,
        steps=loop.steps,
        every=loop.log_every,
        tensorboard=loop.tensorboard,
        silent=not hosts.is_first(),
    )


def _start(
    experiment: Experiment, facts: dict, checkpoints: Checkpoints
) -> tuple[Any, int, list]:
    """The newest checkpoint or a fresh state, its updates, and its unfinished line."""
    strategy, key = experiment.strategy, jax.random.key(experiment.seed)
    make_state = functools.partial(checks.make_state, experiment)
    # Shapes and places only: a fresh state beside the restored one might not fit.
    like = parallel.abstract(strategy, make_state, key)
    if checkpoints.latest_step() is None:
        hosts.say(
            parameter_overview.get_parameter_overview(like.params, include_stats=False)
        )
        return parallel.init(strategy, make_state, key), 0, []
    saved, found = checkpoints.restore(like, expect=facts)
    step = int(saved.step)
    hosts.say(f"resuming at step {step}")
    for line in remarks(found, facts, experiment.settings):
        hosts.say(line)
    return strategy.loaded(saved), step, found.get("log", [])


def _retuned(
    strategy: parallel.Strategy, state: Any, numbers: dict[str, float]
) -> TrainState:
    """The state with the new values among `numbers` in `tuned`."""
    new = {name: numbers[name] for name in state.tuned if name in numbers}
    return state._replace(tuned=state.tuned | parallel.scalars(strategy, new))
