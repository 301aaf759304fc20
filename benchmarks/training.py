"""What Model-Guidance adds to a training step: its time over that of plain training.

    python -m benchmarks.training --rounds 9 --json training.json

The same network, batch and optimizer under three losses, each compiled first and then
timed in turn, on one device. A plain step is one forward pass and a backward pass of
two; with Model-Guidance the teacher runs twice more, forward only: (3 + 2) / 3 = 1.67,
or (4 + 2) / 4 = 1.50 with rematerialisation, which runs the forward pass once more.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from benchmarks import timing
from jaxguide import models, train
from jaxguide.train import loss_config, parallel

PLAIN = "flow_matching"
LOSSES = (PLAIN, "model_guidance", "scale_aware_model_guidance")


def make_call(name: str, options: argparse.Namespace) -> Callable[[], None]:
    """One step under the loss of this name; the state is kept between calls."""
    model = models.DiTConfig(
        image_size=options.size,
        channels=options.channels,
        patch=options.patch,
        width=options.width,
        depth=options.depth,
        heads=options.heads,
        num_classes=10,
        inputs=loss_config.INPUTS.get(name, ()),
        dtype=options.dtype,
        remat=not options.no_remat,
    )
    optimizer = train.adamw(optax.constant_schedule(1e-4), clip=1.0)
    settings = loss_config.LossConfig(name=name)
    step = train.make_train_step(
        loss_config.LOSSES[name](settings, model), optimizer, seed=0
    )

    def make_state(key: jax.Array) -> train.TrainState:
        return train.init_state(models.init(model, key), optimizer)

    strategy = parallel.one_device()
    held = {"state": parallel.init(strategy, make_state, jax.random.key(0))}
    compiled = strategy.compile(step, held["state"])
    rng = np.random.default_rng(0)
    x0 = rng.standard_normal((options.batch, *model.image_shape), np.float32)
    label = rng.integers(0, 10, options.batch).astype(np.int32)
    batch = strategy.feed((x0, label))

    def call() -> None:
        for _ in range(options.steps):
            held["state"], report = compiled(held["state"], batch)
        jax.block_until_ready((held["state"], report))

    return call


def row(name: str, timings: dict[str, timing.Timing], steps: int) -> list[str]:
    """One line of the table."""
    mine, plain = timings[name], timings[PLAIN]
    low, high = mine.spread(plain)
    milliseconds = 1000 * mine.median / steps
    ratio = mine.ratio(plain)
    return [name, f"{ratio:.2f}", f"{low:.2f} .. {high:.2f}", f"{milliseconds:.1f}"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes: dict[str, Any] = dict(size=28, channels=1, patch=4, width=128, depth=6)
    sizes |= dict(heads=4, batch=32, steps=2, rounds=9)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no_remat", action="store_true")
    parser.add_argument("--json", help="file to write the numbers to")
    options = parser.parse_args()
    calls = {name: make_call(name, options) for name in LOSSES}
    for call in calls.values():
        call()
    timings = timing.measure(calls, options.rounds)
    line = functools.partial(row, timings=timings, steps=options.steps)
    head = ["loss", "time over plain", "least .. largest", "ms per step"]
    print(f"median of {options.rounds} rounds; {timing.machine()}\n")
    print(timing.table(head, [line(name) for name in LOSSES]))
    if options.json:
        seconds = {name: timings[name].seconds for name in LOSSES}
        record = vars(options) | timing.machine() | {"seconds": seconds}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
