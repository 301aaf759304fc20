"""What writing a set costs its devices: in a thread of its own, and in turn.

    python -m benchmarks.set_writing --rounds 5

`jaxguide.sample.sets.write_set` with a made device, which sleeps `--busy` milliseconds
per image and takes no processor, as an accelerator does: images 256x256x3 are fetched,
judged, written and hashed. "in turn" is how it was before the thread: a call runs while
the former one is fetched, none runs while a file is written and hashed. "device alone"
makes the images and drops them.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from unittest import mock

import jax
import numpy as np

from benchmarks import timing
from jaxguide.runtime.background import Background
from jaxguide.sample import jobs, sets
from jaxguide.sample.config import SampleConfig

SHARD = 512


class InTurn:
    """In the place of `Background`: the caller itself does the work."""

    def __init__(self, work: Callable[[Any], None], waiting: int):
        del waiting
        self._work = work
        self._running: list[Any] = []

    def put(self, item: Any) -> None:
        """Takes the call before this one, and this one too if it ends a file."""
        self._running.append(item)
        numbers = item[0][-1].numbers
        ends = (numbers[-1] + 1) % SHARD == 0
        while len(self._running) > (0 if ends else 1):
            self._work(self._running.pop(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        while self._running:
            self._work(self._running.pop(0))


class Alone(InTurn):
    """In the place of `Background`: waits for the device, and writes nothing."""

    def __init__(self, work: Callable[[Any], None], waiting: int):
        del work
        super().__init__(lambda item: jax.device_get(item[1]) and None, waiting)


class Later:
    """An array that a device is at work on."""

    def __init__(self, future: Future[np.ndarray]):
        self._future = future

    def __array__(self, *_: Any, **named: Any) -> np.ndarray:
        return self._future.result()


def device(job: jobs.SampleJob, edge: int, busy: float) -> Callable[..., Any]:
    """In the place of `sets._compile`: one call after another, `busy` ms per image."""
    size = job.config.batch_size
    images = np.random.default_rng(0).integers(0, 256, (size, edge, edge, 3), np.uint8)
    queue = ThreadPoolExecutor(1)

    def work() -> np.ndarray:
        time.sleep(size * busy / 1000)
        return images

    def call(labels: np.ndarray, groups: Any) -> Any:
        del labels, groups
        return Later(queue.submit(work)), np.ones(size, np.int32), np.ones(size, bool)

    return lambda *_: sets._Compiled(call, 1)


def run(job: jobs.SampleJob, handing: type, compiled: Callable[..., Any]) -> None:
    """Writes the set once, in a folder of its own."""
    with (
        tempfile.TemporaryDirectory(dir=Path(job.config.folder)) as folder,
        mock.patch.object(sets, "Background", handing),
        mock.patch.object(sets, "_compile", compiled),
    ):
        config = dataclasses.replace(job.config, folder=folder)
        whole = sets.write_set(dataclasses.replace(job, config=config))
        assert whole or handing is Alone


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2048, help="images of a set")
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64, help="images per call")
    parser.add_argument("--busy", type=float, default=1.0, help="ms per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--json", default="")
    chosen = parser.parse_args()
    job = jobs.build_job(
        SampleConfig(
            num_samples=chosen.count,
            shard_size=SHARD,
            batch_size=chosen.batch,
            columns=("none",),
            folder=chosen.folder,
        )
    )
    compiled = device(job, chosen.edge, chosen.busy)
    ways = {"device alone": Alone, "in turn": InTurn, "a thread": Background}
    calls = {
        name: functools.partial(run, job, way, compiled) for name, way in ways.items()
    }
    calls["a thread"]()
    found = timing.measure(calls, chosen.rounds)
    rows = [
        [name, f"{one.median:.2f}", f"{one.ratio(found['in turn']):.2f}"]
        for name, one in found.items()
    ]
    print(f"{chosen.count} images, {timing.machine()}")
    print(timing.table(["writing", "seconds", "over in turn"], rows))
    if chosen.json:
        record = {name: one.seconds for name, one in found.items()}
        text = json.dumps({**vars(chosen), **timing.machine(), "seconds": record})
        Path(chosen.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
