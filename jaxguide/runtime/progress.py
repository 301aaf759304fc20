"""One line of progress for long work."""

import sys
import time
from typing import TextIO


class Progress:
    """Counts steps and shows share done, and time left, a few times a second.

    On a terminal it is one moving line; elsewhere a line a minute, and one at the end.

    Args:
        title: what is going on.
        total: how many steps there will be.
        stream: standard error by default.

    Attributes:
        pause: seconds between two lines.
    """

    def __init__(self, title: str, total: int, stream: TextIO | None = None):
        self._title, self._total, self._done = title, total, 0
        self._stream = stream or sys.stderr
        self._moving = self._stream.isatty()
        self.pause = 0.1 if self._moving else 60.0
        self._start = self._shown = time.perf_counter()

    def step(self, count: int = 1) -> None:
        """Counts finished steps."""
        now = time.perf_counter()
        if self._done == 0:
            self._start = now
        self._done += count
        if now - self._shown > self.pause:
            self._shown = now
            self._stream.write(f"\r\x1b[K{self}" if self._moving else f"{self}\n")
            self._stream.flush()

    def close(self) -> None:
        """Ends the line."""
        self._stream.write(f"\r\x1b[K{self}\n" if self._moving else f"{self}\n")
        self._stream.flush()

    def __str__(self) -> str:
        passed = time.perf_counter() - self._start
        left = passed / max(self._done, 1) * (self._total - self._done)
        return (
            f"{self._title}: step {self._done}/{self._total}, "
            f"{passed:.1f} s, {left:.1f} s left"
        )
