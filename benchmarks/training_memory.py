"""Memory per device when the training state is cut over devices.

    python -m benchmarks.training_memory --model B/2 --batch 32 --devices 1,2,4,8

Compiles the Model-Guidance step of `parallel="fsdp"` for made-up CPU devices, from
shapes alone, and prints what XLA says that one device needs. Nothing is allocated or
run.

state       parameters, averages, moments and the batch: the same on every platform
scratch     of the CPU compiler: shows how activations and fetched parameters shrink;
            a GPU or TPU compiler schedules differently
operations  of one device per step, as XLA counts them, which is a loop body once:
            only their ratio means something
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of `devices` needs: bytes of state and scratch space, operations."""

    devices: int
    state: int
    scratch: int
    operations: float


def measure(options: argparse.Namespace, count: int) -> Share:
    """Compiles the step for `count` devices."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxguide import models, train
    from jaxguide.train import loss_config, parallel

    model = models.dit_config(options.model, remat=True, dtype=options.dtype)
    optimizer = train.adamw(optax.constant_schedule(1e-4), clip=1.0)
    settings = loss_config.LossConfig(name=options.loss)
    loss = loss_config.LOSSES[options.loss](settings, model)

    def make_state(key: Any) -> train.TrainState:
        params = models.init(model, key)
        return train.init_state(params, optimizer, averages=options.averages)

    strategy = parallel.Fsdp(tuple(jax.devices()[:count]))
    decays = (0.9999,) * options.averages
    step = train.make_train_step(loss, optimizer, seed=0, ema=decays)
    state = parallel.abstract(strategy, make_state, jax.random.key(0))
    x0 = jax.ShapeDtypeStruct((options.batch, *model.image_shape), jnp.float32)
    label = jax.ShapeDtypeStruct((options.batch,), jnp.int32)
    compiled = strategy.compile(step, state).lower(state, (x0, label)).compile()
    memory = compiled.memory_analysis()
    return Share(
        count,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        compiled.cost_analysis()["flops"],
    )


def report(shares: list[Share]) -> str:
    """The table."""
    from benchmarks import timing

    first = shares[0]
    rows = [
        [
            str(share.devices),
            f"{share.state / 1e6:,.0f}",
            f"{share.state / first.state:.3f}",
            f"{share.scratch / 1e6:,.0f}",
            f"{share.operations / first.operations:.3f}",
        ]
        for share in shares
    ]
    head = ["devices", "state MB", "of one", "scratch MB", "operations of one"]
    return timing.table(head, rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="B/2")
    parser.add_argument("--batch", type=int, default=32, help="of all devices together")
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--averages", type=int, default=1)
    parser.add_argument("--loss", default="model_guidance")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", help="file to write the numbers to")
    options = parser.parse_args()
    counts = [int(count) for count in options.devices.split(",")]
    flags = f"--xla_force_host_platform_device_count={max(counts)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    shares = [measure(options, count) for count in counts]
    print(f"DiT-{options.model}, {options.dtype}, batch {options.batch}, per device:\n")
    print(report(shares))
    if options.json:
        record = vars(options) | {"shares": [dataclasses.asdict(s) for s in shares]}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
