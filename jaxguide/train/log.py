"""Where the numbers of a run go: a JSONL file, a progress line, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
from clu import metrics

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.train.speed import Work
from jaxguide.train.step import TrainMetrics


class Writer:
    """Receives the numbers of a run; each method but `write` may stay as it is here."""

    def resume(self, step: int) -> None:
        """The run goes on after `step`."""

    def after_step(self, step: int) -> None:
        """A step is done, with or without numbers."""

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Takes the numbers of one log step or evaluation."""
        raise NotImplementedError

    def close(self) -> None:
        """The run is over."""


class JsonlWriter(Writer):
    """Appends one JSON object per log step to a file.

    Args:
        path: of the file; lines of an earlier part of the run are kept.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def resume(self, step: int) -> None:
        """Drops lines of later steps; what is no line of a log is kept beside it.

        A kill may cut the last line, and a broken disk may leave anything.
        """
        self._file.close()
        lines = self._path.read_bytes().splitlines(keepends=True)
        steps = [_step_of(line) for line in lines]
        damaged = [line for line, at in zip(lines, steps, strict=True) if at is None]
        kept = [
            line.rstrip(b"\r\n") + b"\n"
            for line, at in zip(lines, steps, strict=True)
            if at is not None and at <= step
        ]
        if damaged:
            self._keep_aside(damaged)
        if kept != lines:
            beside = self._path.with_suffix(".tmp")
            beside.write_bytes(b"".join(kept))
            beside.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def _keep_aside(self, lines: list[bytes]) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        with aside.open("ab") as file:
            file.writelines(lines)
        print(
            f"run: {len(lines)} line(s) of {self._path} cannot be read; they are kept "
            f"in {aside.name}",
            file=sys.stderr,
        )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Writes `{"step": step, ...}` and flushes."""
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _step_of(line: bytes) -> int | None:
    """The step of a line of the log; None if it is none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if type(step) is int else None


class ProgressLine(Writer):
    """Prints step, loss, speed and time left; on a terminal in one moving line.

    Args:
        steps: length of the run.
        stream: standard error by default.
    """

    def __init__(self, steps: int, stream: TextIO | None = None):
        self._steps = steps
        self._stream = stream or sys.stderr
        self._moving = self._stream.isatty()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Prints one line, if these are the numbers of a log step."""
        if "seconds_left" not in numbers:
            return
        left = timedelta(seconds=round(numbers["seconds_left"]))
        line = (
            f"step {step}/{self._steps}  loss {numbers['loss']:.4f}  "
            f"{numbers['images_per_second']:.0f} images/s  {left} left"
        )
        self._stream.write(f"\r\x1b[K{line}" if self._moving else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the moving line."""
        if self._moving:
            self._stream.write("\n")


class TensorBoardWriter(Writer):
    """Hands the numbers to clu's metric writers, and once a minute its progress report.

    Steps that are repeated after a kill are shown twice.

    Args:
        folder: of the event files.
        steps: length of the run.

    Raises:
        InputError: if TensorFlow and TensorBoard are not installed.
    """

    def __init__(self, folder: Path, steps: int):
        metric_writers, periodic_actions = writers_of_clu()
        self._writer = metric_writers.SummaryWriter(str(folder))
        self._report = periodic_actions.ReportProgress(
            num_train_steps=steps, writer=self._writer
        )

    def after_step(self, step: int) -> None:
        """Reports steps per second and time left, when a minute has passed."""
        self._report(step)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Writes scalars."""
        self._writer.write_scalars(step, numbers)

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()


def writers_of_clu() -> tuple[Any, Any]:
    """clu's modules that write event files.

    Raises:
        InputError: if TensorFlow and TensorBoard are not installed.
    """
    try:
        from clu import metric_writers, periodic_actions
    except ImportError as error:
        raise InputError(
            "TensorBoardWriter: need tensorflow and tensorboard, got "
            f"missing={error.name!r}. pip install 'jaxguide[tensorboard]'."
        ) from error
    return metric_writers, periodic_actions


class StepLog:
    """Averages metrics between log lines, times them, and hands them to the writers.

    `means` holds the averages that were looked at last.

    Args:
        folder: of the run.
        work: what a step costs.
        steps: length of the run.
        every: steps between lines.
        tensorboard: also write event files.
        silent: only average the metrics; another process writes them.
    """

    def __init__(
        self,
        folder: Path,
        work: Work,
        *,
        steps: int,
        every: int,
        tensorboard: bool = False,
        silent: bool = False,
    ):
        self._writers: list[Writer] = []
        if not silent:
            self._writers.append(ProgressLine(steps))
            self._writers.append(JsonlWriter(folder / "metrics.jsonl"))
        if tensorboard and not silent:
            self._writers.append(TensorBoardWriter(folder / "tensorboard", steps))
        self._work, self._steps, self._every = work, steps, every
        self.means: dict[str, float] = {}
        self._restart()

    def _restart(self) -> None:
        self._total, self._empty, self._count = TrainMetrics.empty(), True, 0
        self._since = time.monotonic()

    def resume(self, step: int, window: list | None = None) -> None:
        """Goes on after `step`, so that the lines are those of an unbroken run.

        Args:
            step: of the state that the run goes on from; later lines are dropped.
            window: what `window` returned at that step.
        """
        for writer in self._writers:
            writer.resume(step)
        self._restart()
        if window:
            leaves = [jnp.asarray(value, dtype) for value, dtype in window]
            self._total = jax.tree.structure(self._total).unflatten(leaves)
            self._empty = False

    def window(self) -> list:
        """What was summed up since the last line, JSON-able and exact."""
        if self._empty:
            return []
        return [[v.item(), str(v.dtype)] for v in jax.tree.leaves(self._total)]

    def add(self, step: int, report: metrics.Collection, *, last: bool) -> None:
        """Takes one step's metrics; writes them out when a line is due.

        Raises:
            NonFiniteError: if the loss or the gradient is not finite.
        """
        self._total, self._empty = self._total.merge(report), False
        self._count += 1
        for writer in self._writers:
            writer.after_step(step)
        if not last and step % self._every:
            return
        self.check(step)
        speed = self._count / max(time.monotonic() - self._since, 1e-9)
        numbers = self.means | self._work.rates(speed)
        numbers["seconds_left"] = (self._steps - step) / speed
        self.write(step, numbers)
        self._restart()

    def check(self, step: int) -> None:
        """Looks at all steps since the last line.

        Raises:
            NonFiniteError: if a loss or a gradient was not finite.
        """
        if not self._empty:
            self.means = {k: float(v) for k, v in self._total.compute().items()}
        for part, name in (("loss", "loss"), ("gradient", "grad_norm")):
            if not math.isfinite(self.means.get(name, 0.0)):
                raise NonFiniteError(
                    f"run: need a finite {part}, got {name}={self.means[name]!r} at "
                    f"step {step}. Lower the learning rate or clip the gradient."
                )

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Hands numbers to every writer."""
        for writer in self._writers:
            writer.write(step, numbers)

    def close(self) -> None:
        """Closes every writer."""
        for writer in self._writers:
            writer.close()
