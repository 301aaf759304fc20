"""Promised beside measured: `python tests/report.py > docs/exactness.md`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

import jaxguide as jg
from tests import transforms as tf
from tests.guidance import test_oracle as oracle
from tests.samplers import test_orders as orders


def transform_line(row: tf.Row) -> str:
    out, noise, main, weak = oracle.sampled(row)
    counted = main.evaluations() + weak.evaluations()
    promise = jg.cost(
        main.network(), row.make(row.value), oracle.GRID, jg.euler(),
        networks={"weak": weak.network()},
    )  # fmt: skip
    want = oracle.expected(row, noise, main, oracle.GRID)
    error = np.abs(oracle.flat(out) - want).max()
    merged = oracle.sampled(row, batched=True)[0]
    drift = np.abs(oracle.flat(out) - oracle.flat(merged)).max()
    narrow = oracle.bfloat16_error(row)
    return (
        f"| `{row.name}` | {promise.nfe} | {counted} | {error:.1e} | {narrow:.1e} "
        f"| {drift:.1e} |"
    )


TRANSFORMS = f"""# Exactness

Made by `python tests/report.py > docs/exactness.md`; float32 and bfloat16 on a CPU.

## Transforms

{len(oracle.GRID) - 1} Euler steps on a Gaussian mixture with closed-form predictions,
against the papers' formulas in float64 numpy that shares no code with the library:
largest error of any value of the samples, which are of size 1. Evaluations are counted
at run time; bfloat16 is two steps at mid noise. What happens inside a transformer a
mixture does not have: `tests/guidance/test_inside.py` compares it with a slow float64
forward pass, to 1e-5.

| transform | promised NFE | counted NFE | float32 | bfloat16 | batched - sequential |
| --- | --- | --- | --- | --- | --- |"""
SAMPLERS = """
## Samplers

Order of convergence: log2 of the error's gain from halving the step, against a tight
adaptive solution. Steps are doubled from the number in the table, which is coarse for
VP: there `dpmpp_2m` tends to 2 more slowly (`tests/samplers/test_orders.py`). UniPC and
DPM-Solver++ are also compared with diffusers' schedulers in float64
(`tests/samplers/test_multistep_parity.py`). Stochastic samplers are tested by the exact
mean and covariance of the target.

"""


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    print(TRANSFORMS)
    for row in oracle.KNOWN:
        print(transform_line(row), flush=True)
    names = " | ".join(orders.PATHS)
    print(f"{SAMPLERS}| sampler | order | steps | {names} |")
    print("| --- | --- | --- |" + " --- |" * len(orders.PATHS))
    for name, sampler, order, steps in orders.CASES:
        found = [
            f"{orders.measured(path, sampler, steps):.2f}" for path in orders.PATHS
        ]
        line = f"| `{name}` | {order} | {steps[0]} | " + " | ".join(found) + " |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
