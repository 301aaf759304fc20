"""A training step under several losses and remats, and that of PyTorch.

    python -m benchmarks.training --rounds 9 --json training.json
    python -m benchmarks.training --torch --size 32 --channels 4 --patch 2 --width 384 \
        --heads 6 --depth 3 --batch 2

The same network, batch and optimizer, each variant compiled first and then timed in
turn, on one device. A plain step is one forward pass and a backward pass of two; with
Model-Guidance the teacher runs twice more, forward only: (3 + 2) / 3 = 1.67, or
(4 + 2) / 4 = 1.50 with `--remat full`, which runs the forward pass once more. The
scale-aware loss shows its teacher 7 of 32 rows: (3 + 2 * 7 / 32) / 3 = 1.15.

`--torch` adds flow matching under every remat, and diffusers' DiT in eager PyTorch with
AdamW, clipping and one average. `--cpu_time` counts seconds of all threads instead of
those of the clock: on a busy machine, with one thread for both (`taskset -c 0`).
"""

import argparse
import dataclasses
import functools
import json
import time
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


def make_model(options: argparse.Namespace) -> models.DiTConfig:
    """The network of the command line."""
    return models.DiTConfig(
        image_size=options.size,
        channels=options.channels,
        patch=options.patch,
        width=options.width,
        depth=options.depth,
        heads=options.heads,
        num_classes=10,
        dtype=options.dtype,
    )


def make_call(
    name: str, options: argparse.Namespace, remat: str = ""
) -> Callable[[], None]:
    """`options.steps` steps under the loss of this name."""
    model, remat = make_model(options), remat or options.remat
    return make_step(name, model, options.batch, remat, options.steps)[0]


def against_torch(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Plain steps: of PyTorch, and under the other remats."""
    from benchmarks import torch_training

    model = make_model(options)
    rng = np.random.default_rng(0)
    trainer = torch_training.TorchTraining(
        torch_training.network(model),
        rng.standard_normal((options.batch, *model.image_shape), np.float32),
        rng.integers(0, model.num_classes, options.batch),
        dtype=options.dtype,
    )

    def call() -> None:
        for _ in range(options.steps):
            trainer.step().item()

    others = {"none", "dots", "full"} - {options.remat}
    named = {f"remat {how}": make_call(PLAIN, options, how) for how in sorted(others)}
    return {"PyTorch, eager": call} | named


def make_step(
    name: str, model: models.DiTConfig, batch: int, remat: str, steps: int = 1
) -> tuple[Callable[[], None], float]:
    """(steps under the loss of this name, FLOPs per step and image).

    The state is kept between calls.
    """
    inputs = loss_config.INPUTS.get(name, ())
    model = dataclasses.replace(model, inputs=inputs, remat=remat)
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
    x0 = rng.standard_normal((batch, *model.image_shape), np.float32)
    label = rng.integers(0, model.num_classes, batch).astype(np.int32)
    examples = strategy.feed((x0, label))

    def call() -> None:
        for _ in range(steps):
            held["state"], report = compiled(held["state"], examples)
        jax.block_until_ready((held["state"], report))

    passes = 3 + loss_config.teacher_passes(settings, model, rows=batch)
    return call, passes * models.flops(model)[0]


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
    parser.add_argument("--remat", default="dots", choices=("none", "dots", "full"))
    parser.add_argument("--torch", action="store_true", help="and PyTorch")
    parser.add_argument(
        "--cpu_time", action="store_true", help="seconds of all threads"
    )
    parser.add_argument("--json", help="file to write the numbers to")
    options = parser.parse_args()
    calls = {name: make_call(name, options) for name in LOSSES}
    if options.torch:
        calls |= against_torch(options)
    for call in calls.values():
        call()
    clock = time.process_time if options.cpu_time else time.perf_counter
    timings = timing.measure(calls, options.rounds, clock)
    line = functools.partial(row, timings=timings, steps=options.steps)
    head = ["step", "time over plain", "least .. largest", "ms per step"]
    print(f"median of {options.rounds} rounds; {timing.machine()}\n")
    print(timing.table(head, [line(name) for name in calls]))
    if options.json:
        seconds = {name: timings[name].seconds for name in calls}
        record = vars(options) | timing.machine() | {"seconds": seconds}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
