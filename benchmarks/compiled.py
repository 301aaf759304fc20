"""Compiles sampling for a device that is not here, and models how long a step takes.

    python -m benchmarks.compiled --target h100
    python -m benchmarks.compiled --target v5e --latents 32,64 --batch 64 --chains cfg

The programs are those of `python -m jaxguide.sample`. Times are **modelled**, not
measured: see `roofline.py` and the note under the table. `targets.py` says what to
install. `--check` compiles a few programs and fails on what made them slow before: a
matrix of all tokens by all tokens, a cast of weights inside a loop, more scratch space
than recorded.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

# `targets` has told JAX which devices to look for.
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from benchmarks import hlo, roofline
from benchmarks.targets import TARGETS, Target
from jaxguide import guidance, models, samplers
from jaxguide.models import Weights
from jaxguide.sample import build

STEPS = 50
# Programs that are checked, and the scratch space that they may take, in bytes.
BOUNDS = Path(__file__).with_name("compiled.json")
HEAD = (
    *("model", "latent", "chain", "batch", "dtype", "ms a step", "of the peak"),
    *("scratch GB", "weights GB", "ms by kind"),
)
ALWAYS = {"t_lo": 0.0, "t_hi": 1.0}
CHAINS = {
    "none": guidance.chain,
    "cfg": lambda: guidance.cfg(1.5),
    "cfg+sg_prev": lambda: guidance.chain(
        guidance.cfg(1.5), guidance.sg_prev(1.0, **ALWAYS)
    ),
    "cfg+s2(.1)": lambda: guidance.chain(
        guidance.cfg(1.5), guidance.s2(0.25, drop=0.1, **ALWAYS)
    ),
    "cfg+s2(.5)": lambda: guidance.chain(
        guidance.cfg(1.5), guidance.s2(0.25, drop=0.5, **ALWAYS)
    ),
}


class Case(NamedTuple):
    """One program."""

    chain: str
    model: str = "XL/2"
    latent: int = 32  # edge; 32 is an image of 256 pixels
    batch: int = 64
    dtype: str = "bfloat16"
    batched: Any = None


class Result(NamedTuple):
    """What is known of a compiled program."""

    case: Case
    step: float  # modelled seconds
    floor: float  # seconds of the promised FLOPs at the device's peak
    scratch: int  # bytes
    weights: int  # bytes
    kinds: dict[str, float]  # seconds of a step
    text: str


def model_of(case: Case, target: Target) -> models.DiTConfig:
    """The network as the target runs it."""
    model = models.dit_config(
        case.model, image_size=case.latent, learn_sigma=True, dtype=case.dtype
    )
    return models.tuned(model, target.backend, rows=case.batch)


def lower(case: Case, target: Target) -> tuple[Any, float, int]:
    """The lowered program, FLOPs of a step, bytes of weights."""
    sharding = SingleDeviceSharding(target.devices()[0])
    model = model_of(case, target)
    params = jax.eval_shape(functools.partial(models.init, model), jax.random.key(0))
    params = jax.eval_shape(functools.partial(models.cast_params, model), params)
    chain = CHAINS[case.chain]()
    grid, euler = samplers.uniform(STEPS), samplers.euler()

    def network(params: Any) -> Any:
        weights = Weights(params, model, "linear", "velocity", ("",) * 1000, {})
        return build.build_network(weights)

    few = models.few_rows(model, target.backend, rows=case.batch)

    def sample(params: Any, noise: Any, labels: Any, key: Any) -> Any:
        return samplers.generate(
            tabulated(params, labels) if few else network(params),
            noise,
            labels,
            grid=grid,
            sampler=euler,
            guidance=chain,
            conds={"null": jnp.full_like(labels, model.null_label)},
            key=key,
            batched=case.batched,
        )

    def tabulated(params: Any, labels: Any) -> Any:
        known = jnp.append(labels, model.null_label)
        return build.tabulated(network(params), grid, euler, known)

    def placed(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    key = jax.eval_shape(lambda: jax.random.key(0))
    given = (
        params,
        jax.ShapeDtypeStruct((case.batch, *model.image_shape), jnp.float32),
        jax.ShapeDtypeStruct((case.batch,), jnp.int32),
        key,
    )
    cost = samplers.cost(network(params), chain, grid, euler)
    weights = sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(params)
    )
    lowered = jax.jit(sample).lower(*jax.tree.map(placed, given))
    return lowered, (cost.flops or 0.0) * case.batch / STEPS, weights


def measure(case: Case, target: Target) -> Result:
    """Compiles one program and models its step."""
    lowered, flops, weights = lower(case, target)
    compiled = lowered.compile(compiler_options=target.options)
    text = compiled.as_text()
    # The table of modulations has all times of the grid.
    few = models.few_rows(model_of(case, target), target.backend, rows=case.batch)
    time = roofline.estimate(hlo.Module(text), target.limits, shortest=few)
    kinds = {kind: seconds / STEPS for kind, seconds in time.seconds.items()}
    return Result(
        case,
        time.total / STEPS,
        flops / target.limits.flops["bf16"],
        compiled.memory_analysis().temp_size_in_bytes,
        weights,
        kinds,
        text,
    )


def row(result: Result) -> str:
    """One line of the table."""
    case = result.case
    kinds = ", ".join(
        f"{kind} {seconds * 1e3:.2f}"
        for kind, seconds in sorted(result.kinds.items(), key=lambda pair: -pair[1])
        if seconds > 0.01 * result.step
    )
    cells = (
        *(case.model, case.latent, case.chain, case.batch, case.dtype),
        f"{result.step * 1e3:.2f}",
        f"{result.floor / result.step:.0%}",
        f"{result.scratch / 1e9:.2f}",
        f"{result.weights / 1e9:.2f}",
        kinds,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def faults(result: Result) -> list[str]:
    """What must not be in a program for an accelerator."""
    module = hlo.Module(result.text)
    tokens = (result.case.latent // 2) ** 2
    inside = module.inside_loops()
    found = []
    for name, lines in module.computations.items():
        for one in lines:
            for dtype, sizes in hlo.arrays(one.shape):
                if dtype == "f32" and sizes[-2:] == (tokens, tokens):
                    found.append(f"float32 {sizes} in {one.name}")
            if name in inside and _casts_weights(one, result):
                found.append(f"weights are cast in a loop: {one.name} {one.shape}")
    return sorted(set(found))


def _casts_weights(one: hlo.Instruction, result: Result) -> bool:
    """Whether a line converts a stack of weights, one slice for each block."""
    if one.op != "convert":
        return False
    depth = models.dit_config(result.case.model).depth
    return any(
        sizes[0] == depth and math.prod(sizes) > 1_000_000
        for _, sizes in hlo.arrays(one.shape)
        if sizes
    )


def check() -> int:
    """Compiles the recorded programs; prints what is wrong and counts it."""
    wrong = 0
    for name, bounds in json.loads(BOUNDS.read_text(encoding="utf-8")).items():
        target = TARGETS[name]
        if not target.installed:
            print(f"{name}: not checked, {target.package} is not installed")
            continue
        for bound in bounds:
            most = bound.pop("scratch")
            result = measure(Case(**bound), target)
            found = faults(result)
            if result.scratch > most:
                found.append(f"scratch {result.scratch:,} bytes above {most:,}")
            print(f"{name} {bound}: {'; '.join(found[:3]) or 'good'}", flush=True)
            wrong += bool(found)
    return wrong


def cases(options: argparse.Namespace) -> list[Case]:
    """All combinations that are asked for."""
    lists = (
        options.chains.split(","),
        options.models.split(","),
        map(int, options.latents.split(",")),
        map(int, options.batch.split(",")),
        options.dtypes.split(","),
    )
    return [Case(*one) for one in itertools.product(*lists)]


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--check", action="store_true", help="fail on what was slow")
    parser.add_argument("--chains", default=",".join(CHAINS))
    parser.add_argument("--models", default="XL/2")
    parser.add_argument("--latents", default="32")
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--dtypes", default="bfloat16")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hlo", type=Path, help="folder for the programs' text")
    return parser.parse_args()


def main() -> None:
    """Prints the table; a line is ready when its program is compiled."""
    options = parse()
    if options.check:
        sys.exit(1 if check() else 0)
    if options.target is None:
        sys.exit("compiled: need --target h100, --target v5e or --check")
    target = TARGETS[options.target]
    if not target.installed:
        sys.exit(f"compiled: need {target.package} for --target {target.name}")
    print(f"Modelled, {target.name}, {STEPS} Euler steps: {target.note}.\n")
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD), flush=True)
    results = []
    for case in cases(options):
        result = measure(case, target)
        print(row(result), flush=True)
        for fault in faults(result)[:5]:
            print(f"  {fault}")
        results.append(result._replace(text="")._asdict())
        if options.hlo:
            options.hlo.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "_", "_".join(map(str, case)))
            (options.hlo / f"{name}.txt").write_text(result.text, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
