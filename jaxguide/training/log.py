"""Where the numbers of a run go: a JSONL file, a progress line, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TextIO

from clu import metrics

from jaxguide.training.speed import Work
from jaxguide.training.step import TrainMetrics


class Writer(Protocol):
    """Receives the numbers of one log step."""

    def write(self, step: int, numbers: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """Appends one JSON object per log step to a file.

    Args:
        path: of the file; lines of an earlier part of the run are kept.
    """

    def __init__(self, path: Path):
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Writes `{"step": step, ...}` and flushes."""
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class ProgressLine:
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


class TensorBoardWriter:
    """Hands the numbers to clu's metric writers.

    Args:
        folder: of the event files.

    Raises:
        ValueError: if TensorFlow and TensorBoard are not installed.
    """

    def __init__(self, folder: Path):
        try:
            from clu import metric_writers
        except ImportError as error:
            raise ValueError(
                "TensorBoardWriter: need tensorflow and tensorboard, got "
                f"missing={error.name!r}. pip install 'jaxguide[tensorboard]'."
            ) from error
        self._writer = metric_writers.SummaryWriter(str(folder))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Writes scalars."""
        self._writer.write_scalars(step, numbers)

    def close(self) -> None:
        """Flushes and closes."""
        self._writer.close()


class StepLog:
    """Averages metrics between log lines, times them, and hands them to the writers.

    Args:
        folder: of the run.
        work: what a step costs.
        steps: length of the run.
        every: steps between lines.
        tensorboard: also write event files.
        silent: only watch the loss: another process writes.
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
            self._writers.append(TensorBoardWriter(folder / "tensorboard"))
        self._work, self._steps, self._every = work, steps, every
        self._restart()

    def _restart(self) -> None:
        self._total, self._count = TrainMetrics.empty(), 0
        self._since = time.monotonic()

    def add(self, step: int, report: metrics.Collection, *, flush: bool) -> None:
        """Takes one step's metrics; writes them out when a line is due.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        self._total = self._total.merge(report)
        self._count += 1
        if not flush and step % self._every:
            return
        numbers = {name: float(v) for name, v in self._total.compute().items()}
        if not math.isfinite(numbers["loss"]):
            raise FloatingPointError(
                f"run: need a finite loss, got loss={numbers['loss']!r} at step "
                f"{step}. Lower the learning rate or clip the gradient."
            )
        speed = self._count / max(time.monotonic() - self._since, 1e-9)
        numbers |= self._work.rates(speed)
        numbers["seconds_left"] = (self._steps - step) / speed
        self.write(step, numbers)
        self._restart()

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Hands numbers to every writer."""
        for writer in self._writers:
            writer.write(step, numbers)

    def close(self) -> None:
        """Closes every writer."""
        for writer in self._writers:
            writer.close()
