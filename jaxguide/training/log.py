"""Where the numbers of a run go: a JSONL file, a progress line, TensorBoard."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TextIO


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
        """Prints one line."""
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
