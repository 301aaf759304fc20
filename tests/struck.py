"""A command that is struck by a signal at a chosen moment, in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests import quick

ROOT = Path(__file__).parents[1]


class Struck:
    """`python -m MODULE WORDS`, started again and again.

    After `strike`, `code` is how the process ended, `out` and `err` what it printed.
    """

    def __init__(self, folder: Path, module: str, words: Sequence[str]):
        self.folder = folder
        self.command = [sys.executable, "-m", module, *words]

    def progress(self) -> int:
        """How far the command has come, read from its files; -1 is nowhere."""
        raise NotImplementedError

    def start(self, *words: str) -> subprocess.Popen:
        """Another process of it."""
        return subprocess.Popen(
            [*self.command, *words],
            cwd=ROOT,
            env=quick.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> str:
        """Runs to the end; what it printed."""
        process = self.start()
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        return out + err

    def strike(self, target: int, delay: float, number: int) -> int:
        """Sends signal `number`, `delay` seconds after `target`; the progress then."""
        process = self.start()
        while self.progress() < target:
            if process.poll() is not None:
                raise RuntimeError(process.communicate()[1])
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(number)
        self.out, self.err = process.communicate(timeout=900)
        self.code = process.returncode
        return self.progress()
