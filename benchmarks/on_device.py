"""One run on a GPU: is it right, how fast is it, and beside what.

    python -m benchmarks.on_device --json on_device.json
    python -m benchmarks.on_device --table on_device.json    # its numbers as Markdown
    python -m benchmarks.on_device --tiny                    # the same path on a CPU

In under eight minutes: fused attention against dense and bfloat16 against float32, the
rate of large matrix products, sampling of DiT-XL/2 on 32 x 32 x 4 with the guidance
that costs differently, a training step, and diffusers' DiT under both. What no time is
left for is skipped, what fails is kept as a line, and the file says both. It is written
anew after every part, so a run that is cut off leaves what it measured.
"""

import os

# PyTorch measures on the same GPU in the same process: JAX must not take all memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxguide as jg
from benchmarks import device_checks
from benchmarks.device_record import Record, table, words
from benchmarks.sampling import chains
from jaxguide import models
from jaxguide.guidance import Network

CHAINS = ("cfg", "none", "cfg + sg_prev", "cfg + s2(drop=0.1)", "cfg + s2(drop=0.5)")


@dataclasses.dataclass
class Plan:
    """What is measured, in which size.

    Attributes:
        config: the network.
        batches: images per call, the most important first.
        training_batch: images per update.
        steps: Euler steps per call.
        rounds: timed calls, of which the median counts.
        products: edges of square matrices.
        budget: seconds for all.
        compiler: backend of `torch.compile`.
    """

    config: models.DiTConfig
    batches: tuple[int, ...] = (64, 1, 8)
    training_batch: int = 32
    steps: int = 10
    rounds: int = 5
    products: tuple[int, ...] = (4096, 8192, 16384)
    budget: float = 470.0
    compiler: str = "inductor"


def full_plan() -> Plan:
    """XL/2 in bfloat16."""
    return Plan(models.dit_config("XL/2", dtype="bfloat16"))


def tiny_plan() -> Plan:
    """Seconds on a CPU."""
    config = models.DiTConfig(8, 4, 2, 32, 2, 2, num_classes=10, dtype="bfloat16")
    return Plan(config, (2, 1), 2, steps=2, rounds=1, products=(64,), compiler="eager")


def median_seconds(call: Callable[[], Any], rounds: int) -> float:
    """Of a call that waits for its own result; once more before, to compile."""
    call()
    spans = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        spans.append(time.perf_counter() - start)
    return statistics.median(spans)


def products(record: Record) -> dict[str, Any]:
    """Square bfloat16 products, ten in a row: the rate that is called the ceiling."""

    @jax.jit
    def chain(a: jax.Array, b: jax.Array) -> jax.Array:
        for _ in range(10):
            a = (a @ b).astype(a.dtype)
        return a

    rates = {}
    for edge in record.plan.products:
        # Columns of unit length: powers neither vanish nor overflow.
        a, b = (
            jax.random.normal(jax.random.key(i), (edge, edge), jnp.bfloat16)
            for i in range(2)
        )
        b = b / edge**0.5
        seconds = median_seconds(lambda a=a, b=b: jax.block_until_ready(chain(a, b)), 5)
        rates[str(edge)] = 10 * 2 * edge**3 / seconds / 1e12
    record.data["matmul"] = {"tflops": rates, "best_tflops": max(rates.values())}
    return {}


def checks(record: Record) -> dict[str, Any]:
    """Errors of half precision and of fused attention, with the limits they keep."""
    record.data["checks"] = device_checks.run(record.plan.config)
    return {}


def make_params(config: models.DiTConfig) -> Any:
    """Random weights in the dtype of the computation, made on the device."""
    shapes = jax.eval_shape(functools.partial(models.init, config), jax.random.key(0))

    @jax.jit
    def draw(key: jax.Array) -> Any:
        leaves, tree = jax.tree.flatten(shapes)
        keys = jax.random.split(key, len(leaves))
        pairs = zip(keys, leaves, strict=True)
        drawn = [0.03 * jax.random.normal(k, x.shape, config.dtype) for k, x in pairs]
        return jax.tree.unflatten(tree, drawn)

    return draw(jax.random.key(1))


def tuned(config: models.DiTConfig, batch: int) -> models.DiTConfig:
    """The network as the commands would run it here."""
    if not hasattr(models, "tuned"):
        return config
    return models.tuned(config, jax.default_backend(), rows=batch)


def sampling(
    record: Record, params: Any, chain: str, batch: int, **changes: Any
) -> dict[str, Any]:
    """Milliseconds per Euler step of one chain; `changes` are fields of the network."""
    plan = record.plan
    config = dataclasses.replace(tuned(plan.config, batch), **changes)
    total, block = models.flops(config)
    predict = jax.tree_util.Partial(models.Predictor(config), params)
    network = Network(
        predict, depth=config.depth, flops=float(total), block_flops=float(block)
    )
    guidance, grid = chains()[chain].guidance, jg.uniform(plan.steps)

    @jax.jit
    def sample(network: Network, noise: Any, labels: Any, key: Any) -> Any:
        null = jnp.full_like(labels, config.null_label)
        return jg.generate(
            network, noise, labels, grid=grid, sampler=jg.euler(), guidance=guidance,
            conds={"null": null}, key=key,
        )  # fmt: skip

    noise = jax.random.normal(jax.random.key(2), (batch, *config.image_shape))
    labels = jnp.arange(batch, dtype=jnp.int32) % config.num_classes
    compiled = sample.lower(network, noise, labels, jax.random.key(3)).compile()
    call = functools.partial(compiled, network, noise, labels, jax.random.key(3))
    if not bool(jnp.isfinite(call()).all()):
        raise FloatingPointError("the samples are not finite")
    seconds = median_seconds(lambda: jax.block_until_ready(call()), plan.rounds)
    flops = batch * float(jg.cost(network, guidance, grid, jg.euler()).flops or 0)
    memory = compiled.memory_analysis()
    row = {"task": "sample", "by": "jaxguide", "chain": chain, "batch": batch}
    rate = record.rate(seconds / plan.steps, flops / plan.steps)
    scratch = getattr(memory, "temp_size_in_bytes", None)
    return row | rate | {"changes": changes, "scratch": scratch}


def training(record: Record, loss: str, remat: str) -> dict[str, Any]:
    """Milliseconds per update under a loss."""
    from benchmarks.training import make_step

    plan = record.plan
    call, flops = make_step(loss, plan.config, plan.training_batch, remat)
    seconds = median_seconds(call, plan.rounds)
    row = {"task": "train", "by": "jaxguide", "chain": loss, "remat": remat}
    rate = record.rate(seconds, flops * plan.training_batch)
    return row | {"batch": plan.training_batch} | rate


def torch_sampling(record: Record, batch: int, compiled: bool) -> dict[str, Any]:
    """CFG by diffusers' DiT in one call of twice the batch, per step."""
    from benchmarks import torch_cfg, torch_training

    plan, config = record.plan, record.plan.config
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((batch, *config.image_shape), np.float32)
    labels = np.arange(batch) % config.num_classes
    sampler = torch_cfg.TorchCFG(
        torch_training.network(config),
        noise,
        labels,
        jg.uniform(plan.steps),
        time_scale=config.time_scale,
        dtype=config.dtype,
        compiled=plan.compiler if compiled else False,
    )
    call = functools.partial(sampler.sample, 1.5, doubled=True)
    seconds = median_seconds(call, plan.rounds) / plan.steps
    row = {"task": "sample", "by": _by(compiled), "chain": "cfg", "batch": batch}
    return row | record.rate(seconds, 2 * batch * models.flops(config)[0])


def torch_training_step(record: Record, compiled: bool) -> dict[str, Any]:
    """An update of diffusers' DiT, flow matching under autocast."""
    from benchmarks import torch_training

    plan, config = record.plan, record.plan.config
    batch = plan.training_batch
    rng = np.random.default_rng(0)
    trainer = torch_training.TorchTraining(
        torch_training.network(config),
        rng.standard_normal((batch, *config.image_shape), np.float32),
        np.arange(batch) % config.num_classes,
        time_scale=config.time_scale,
        dtype=config.dtype,
        compiled=plan.compiler if compiled else False,
    )
    seconds = median_seconds(lambda: trainer.step().item(), plan.rounds)
    row = {"task": "train", "by": _by(compiled), "chain": "flow_matching"}
    rate = record.rate(seconds, 3 * batch * models.flops(config)[0])
    return row | {"batch": batch, "remat": "none"} | rate


def _by(compiled: bool) -> str:
    return "diffusers, torch.compile" if compiled else "diffusers, eager"


def measure(plan: Plan, path: str = "") -> dict[str, Any]:
    """Everything, the most important first."""
    record = Record(plan, path)
    record.part("matrix products", "check", lambda: products(record))
    record.part("checks", "check", lambda: checks(record))
    params = make_params(plan.config)

    def ours(chain: str, batch: int, **named: Any) -> None:
        name = f"{chain}, batch {batch}" + words(named)
        measured = functools.partial(sampling, record, params, chain, batch, **named)
        record.part(name, "jaxguide", measured)

    def theirs(batch: int, compiled: bool) -> None:
        kind = "torch.compile" if compiled else "torch"
        name = f"{_by(compiled)}, batch {batch}"
        record.part(name, kind, lambda: torch_sampling(record, batch, compiled))

    def train(loss: str, remat: str) -> None:
        name = f"train {loss}, remat {remat}"
        record.part(name, "training", lambda: training(record, loss, remat))

    for batch in plan.batches:
        ours("cfg", batch)
    train("flow_matching", "none")
    for batch in plan.batches:
        theirs(batch, False)
    theirs(plan.batches[0], True)
    for chain in CHAINS[1:]:
        ours(chain, plan.batches[0])
    train("model_guidance", "none")
    for compiled in (False, True):
        name, kind = f"train {_by(compiled)}", ("torch", "torch.compile")[compiled]
        step = functools.partial(torch_training_step, record, compiled)
        record.part(name, kind, step)
    for batch in plan.batches:
        unroll = getattr(tuned(plan.config, batch), "unroll", None)
        if unroll is not None:  # the other choice than that of the commands
            ours("cfg", batch, unroll=not unroll)
    for batch in plan.batches[1:]:
        for chain in CHAINS[1:]:
            ours(chain, batch)
        theirs(batch, True)
    for remat in ("dots", "full"):
        train("flow_matching", remat)
    train("scale_aware_model_guidance", "none")
    return record.data


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks.on_device")
    parser.add_argument("--json", default="", help="file for all numbers")
    parser.add_argument("--table", default="", help="a file to print, instead")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU")
    parser.add_argument("--seconds", type=float, help="for all; 470 by default")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(Path(options.table).read_text(encoding="utf-8"))))
        return
    plan = tiny_plan() if options.tiny else full_plan()
    plan.budget = options.seconds or plan.budget
    data = measure(plan, options.json)
    print(table(data))
    if data["failed"] or not all(check["holds"] for check in data["checks"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
