"""What guidance costs: against diffusers' DiT in PyTorch, and chain against chain.

    python -m benchmarks.sampling --models S/2,B/2 --json sampling.json

Two tables per model, each from one run with all its variants in turn:
(a) CFG with Euler steps, the same random weights in jaxguide and in PyTorch; the
    outputs are compared first.
(b) chains of transforms in jaxguide, relative to CFG, beside the promised cost.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxguide as jg
from benchmarks import timing
from jaxguide import models
from jaxguide.guidance import Branch, Change, Network, View

SCALE, TIME_SCALE = 2.0, 1000.0
HAVE_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))
NO_TORCH = (
    "(a) skipped: needs torch and diffusers (pip install torch diffusers); "
    "everything else runs without them."
)


@dataclasses.dataclass(frozen=True)
class AllBlocks(Change):
    """A change like that of `s2` that leaves nothing out; for the price of skipping."""

    def taps(self, here: View) -> dict[str, Any]:
        """Every block, through the same argument as a choice."""
        return {"keep_blocks": jnp.arange(here.called.depth, dtype=jnp.int32)}


class Row(NamedTuple):
    """One line of table (b)."""

    guidance: jg.Chain
    batched: bool = False


def chains() -> dict[str, Row]:
    """Every chain of table (b); windows cover all steps unless they are named."""
    whole = dict(t_lo=0.0, t_hi=1.0)
    cfg = jg.cfg(SCALE)
    drop_none = jg.contrast(0.25, Branch(change=AllBlocks()), name="drop_none")
    return {
        "cfg": Row(jg.chain(cfg)),
        "none": Row(jg.chain()),
        "cfg, one call of 2B": Row(jg.chain(cfg), batched=True),
        "cfg in [0.25, 0.75)": Row(jg.chain(jg.cfg(SCALE, t_lo=0.25, t_hi=0.75))),
        "cfg + sg_prev": Row(jg.chain(cfg, jg.sg_prev(1.0, **whole))),
        "cfg + sg": Row(jg.chain(cfg, jg.sg(1.0))),
        "cfg + sg, one call of 3B": Row(jg.chain(cfg, jg.sg(1.0)), batched=True),
        "cfg + third branch, all blocks": Row(jg.chain(cfg, drop_none)),
        "cfg + s2(drop=0.1)": Row(jg.chain(cfg, jg.s2(0.25, drop=0.1, **whole))),
        "cfg + s2(drop=0.5)": Row(jg.chain(cfg, jg.s2(0.25, drop=0.5, **whole))),
    }


class Task(NamedTuple):
    """One model with its inputs."""

    name: str
    config: models.DiTConfig
    network: Network
    noise: np.ndarray  # [B, H, W, C]
    labels: np.ndarray  # [B]
    grid: np.ndarray  # [N + 1]
    theirs: Any  # diffusers' network with the same weights, or None


def make_task(name: str, options: argparse.Namespace) -> Task:
    """The model of this name with random weights and inputs."""
    config = models.dit_config(
        name,
        learn_sigma=True,
        time_scale=TIME_SCALE,
        downscale_freq_shift=1.0,
        dtype=options.dtype,
    )
    theirs, params = _weights(config, options)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, options.dtype), params)
    total, block = models.flops(config)
    network = Network(
        jax.tree_util.Partial(functools.partial(_forward, config), params),
        depth=config.depth,
        flops=float(total),
        block_flops=float(block),
    )
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((options.batch, *config.image_shape), np.float32)
    labels = rng.integers(0, config.num_classes, options.batch).astype(np.int32)
    grid = jg.uniform(options.steps)
    return Task(name, config, network, noise, labels, grid, theirs)


def _weights(config: models.DiTConfig, options: argparse.Namespace) -> tuple[Any, Any]:
    """(diffusers' network or None, the same weights for `models.apply`)."""
    if HAVE_TORCH and not options.no_torch:
        from tests import diffusers_dit

        theirs = diffusers_dit.their_network(config, std=0.04)
        return theirs, diffusers_dit.our_params(theirs)
    shapes = jax.eval_shape(functools.partial(models.init, config), jax.random.key(0))
    rng = np.random.default_rng(1)
    draw = functools.partial(rng.standard_normal, dtype=np.float32)
    return None, jax.tree.map(lambda leaf: 0.04 * draw(leaf.shape), shapes)


def _forward(config: models.DiTConfig, params: Any, x: Any, t: Any, label: Any, **taps):
    out = models.apply(config, params, x, t, label, **taps)
    return models.split_sigma(config, out)


def compile_sampler(task: Task, row: Row) -> tuple[Callable[[], np.ndarray], float]:
    """(sample() -> images on the host, seconds to trace and compile)."""

    def sample(network: Network, noise: Any, labels: Any, key: Any) -> Any:
        return jg.generate(
            network,
            noise,
            labels,
            grid=task.grid,
            sampler=jg.euler(),
            guidance=row.guidance,
            conds={"null": jnp.full_like(labels, task.config.null_label)},
            key=key,
            batched=row.batched,
        )

    inputs = jnp.asarray(task.noise), jnp.asarray(task.labels), jax.random.key(0)
    start = time.perf_counter()
    compiled = jax.jit(sample).lower(task.network, *inputs).compile()
    seconds = time.perf_counter() - start
    return lambda: np.asarray(compiled(task.network, *inputs)), seconds


def against_torch(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Table (a): prints it and returns its numbers."""
    from benchmarks.torch_cfg import TorchCFG, set_tf32, versions

    set_tf32(options.tf32)

    def theirs(compiled: bool = False) -> TorchCFG:
        inputs = task.theirs, task.noise, task.labels, task.grid
        return TorchCFG(
            *inputs, time_scale=TIME_SCALE, dtype=options.dtype, compiled=compiled
        )

    eager = theirs()
    ours = {
        f"jaxguide, {calls}": compile_sampler(task, Row(jg.chain(jg.cfg(SCALE)), two))
        for calls, two in (("one call of 2B", True), ("two calls of B", False))
    }
    variants = {
        "torch eager, one call of 2B": lambda: eager.sample(SCALE, doubled=True),
        "torch eager, two calls of B": lambda: eager.sample(SCALE, doubled=False),
    }
    if options.torch_compile:
        quick = theirs(compiled=True)
        variants["torch.compile, one call of 2B"] = lambda: quick.sample(
            SCALE, doubled=True
        )
    variants |= {name: function for name, (function, _) in ours.items()}
    print(f"\n### (a) {task.name}: CFG against diffusers ({versions()})\n")
    differences = _compare(task, eager, variants, options.dtype)
    found = timing.measure(variants, options.repeats)
    _print_against(found)
    return {
        "differences": differences,
        "compile_seconds": {name: seconds for name, (_, seconds) in ours.items()},
        "seconds": {name: times.seconds for name, times in found.items()},
    }


def _compare(
    task: Task, eager: Any, variants: dict[str, Callable], dtype: str
) -> dict[str, float]:
    """Largest differences of one forward pass and of all samples, printed."""
    half = jnp.full(len(task.noise), 0.5)
    ours, _ = jax.jit(lambda network, *args: network.predict(*args))(
        task.network, jnp.asarray(task.noise), half, jnp.asarray(task.labels)
    )
    theirs = eager.forward()
    samples = {name: function() for name, function in variants.items()}
    base = next(iter(samples.values()))
    forward = float(np.abs(np.asarray(ours) - theirs).max())
    sampled = max(float(np.abs(images - base).max()) for images in samples.values())
    size, image_size = float(np.abs(theirs).max()), float(np.abs(base).max())
    print(f"One forward pass: max |difference| {forward:.2g} at max |out| {size:.3g}.")
    print(f"All samples:      max |difference| {sampled:.2g} at {image_size:.3g}.\n")
    limit = 1e-3 if dtype == "float32" else 0.1
    if not (forward < limit * size and sampled < limit * image_size):
        raise SystemExit("benchmark: the outputs differ; timings would mean nothing.")
    return {"forward": forward, "samples": sampled, "largest_output": size}


def _print_against(found: dict[str, timing.Timing]) -> None:
    base = next(iter(found.values()))
    rows = []
    for name, times in found.items():
        low, high = times.spread(base)
        numbers = [f"{times.ratio(base):.2f}", f"{low:.2f}..{high:.2f}"]
        least = f"{times.least / base.least:.2f}"
        rows.append([name, *numbers, least, f"{times.median:.2f}"])
    head = ["", "time / first row", "range", "of fastest rounds", "median s"]
    print(timing.table(head, rows))


def chain_costs(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Table (b): prints it and returns its numbers."""
    rows = chains()
    made = {name: compile_sampler(task, row) for name, row in rows.items()}
    costs = {
        name: jg.cost(task.network, row.guidance, task.grid, jg.euler())
        for name, row in rows.items()
    }
    functions = {name: function for name, (function, _) in made.items()}
    for function in functions.values():
        function()
    found = timing.measure(functions, options.repeats)
    print(f"\n### (b) {task.name}: chains relative to CFG (two calls of B)\n")
    lines = []
    for name, times in found.items():
        base, flops = found["cfg"], costs[name].flops / costs["cfg"].flops
        low, high = times.spread(base)
        promise = [str(costs[name].nfe), f"{flops:.3f}"]
        ratios = [f"{times.ratio(base):.3f}", f"{low:.2f}..{high:.2f}"]
        least = f"{times.least / base.least:.3f}"
        lines.append([name, *promise, *ratios, least, f"{times.median:.2f}"])
    head = ["chain", "NFE", "FLOPs / CFG", "time / CFG", "range"]
    print(timing.table([*head, "of fastest rounds", "median s"], lines))
    return {
        name: {
            "nfe": costs[name].nfe,
            "flops": costs[name].flops,
            "compile_seconds": made[name][1],
            "seconds": times.seconds,
        }
        for name, times in found.items()
    }


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "benchmarks.sampling", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--models", default="S/2", help="comma-separated, e.g. S/2,B/2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="Euler steps")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tables", default="a,b", help="a, b or both")
    parser.add_argument("--no-torch", action="store_true", help="jaxguide alone")
    parser.add_argument("--torch-compile", action="store_true", help="one more row")
    parser.add_argument(
        "--tf32", action="store_true", help="float32 products in TF32, in both"
    )
    parser.add_argument("--json", default="", help="file for all numbers")
    return parser.parse_args(words)


def main() -> None:
    """Runs both tables for every model."""
    options = parse()
    precision = "default" if options.tf32 else "highest"
    if options.dtype == "float32":
        jax.config.update("jax_default_matmul_precision", precision)
    before = timing.machine()
    print(f"jaxguide {jg.__version__}, jax {jax.__version__}")
    print(f"device {jax.devices()[0].device_kind}; {before['processor']}")
    print(f"{before['cores']} cores, load average before {before['load_average']}")
    print(
        f"batch {options.batch}, {options.steps} Euler steps, {options.dtype}, "
        f"{options.repeats} alternating rounds; compilation and one warm-up call apart"
    )
    results: dict[str, Any] = {"options": vars(options), "before": before}
    for name in options.models.split(","):
        task, found = make_task(name, options), {}
        if "a" in options.tables:
            if task.theirs is None:
                print(f"\n{NO_TORCH}")
            else:
                found["against_torch"] = against_torch(task, options)
        if "b" in options.tables:
            found["chains"] = chain_costs(task, options)
        results[name] = found
    results["after"] = timing.machine()
    print(f"\nload average after {results['after']['load_average']}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
        print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
