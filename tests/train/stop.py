"""Stops a run of two processes again and again while the machine is busy.

    python tests/train/stop.py [stops] [seed]

The run is `train/local_pod.sh 2 -- python -m jaxguide.train` on the digits, beside two
programs that never rest. It is told to stop (SIGTERM to the launcher, which passes it
on) at a random moment, and carried on with. Every time both processes have to end with
75, say after which step, and have saved that step.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests import quick

ROOT = Path(__file__).parents[2]
# A process that is silent for 40 s counts as gone; a good end takes a few seconds.
MOST = 300.0


@contextlib.contextmanager
def busy(count: int = 2) -> Iterator[None]:
    """Programs that take all the time they get."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def start(folder: Path, output: Path) -> subprocess.Popen:
    """A run that would go on for ever."""
    program = [
        *(sys.executable, "-m", "jaxguide.train"),
        f"--config={ROOT / 'configs' / 'digits.py'}:tiny",
        f"--config.folder={folder}",
        "--config.steps=1000000",
        "--config.log_every=1",
        "--config.save_every=1000000",
        "--config.snapshot_every=1000000",
        "--wait=300",
    ]
    with output.open("w") as stream:
        return subprocess.Popen(
            ["bash", "train/local_pod.sh", "2", "--", *program],
            cwd=ROOT,
            env=quick.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def stop_once(folder: Path, output: Path, delay: float) -> tuple[int, float]:
    """The step after which the run stopped, and the seconds that this took."""
    pod = start(folder, output)
    try:
        while "images/s" not in output.read_text():
            assert pod.poll() is None, output.read_text()
            time.sleep(0.05)
        time.sleep(delay)
        begin = time.monotonic()
        pod.send_signal(signal.SIGTERM)
        pod.wait(timeout=MOST)
    finally:
        pod.terminate()
    told = output.read_text()
    assert pod.returncode == 75, told
    found = re.search(r"stopped after step (\d+)", told)
    assert found, told
    saved = folder / "checkpoints" / found[1] / "_CHECKPOINT_METADATA"
    assert saved.exists(), told
    return int(found[1]), time.monotonic() - begin


def stop(folder: Path, stops: int, seed: int) -> None:
    """Stops a run so many times; prints when, and how long it took to end."""
    draw = random.Random(seed)
    with busy():
        last = 0
        for number in range(stops):
            output = folder / f"{number}.txt"
            step, seconds = stop_once(folder / "run", output, draw.uniform(0, 3))
            print(f"stop {number}: after step {step}, in {seconds:.1f} s", flush=True)
            assert step > last, "the run has carried on"
            last = step


def main(stops: int = 50, seed: int = 0) -> None:
    """Raises at the first stop that was neither saved nor said."""
    with tempfile.TemporaryDirectory() as folder:
        stop(Path(folder), stops, seed)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
