"""What is promised beside what was counted and measured: `python tests/report.py`.

Transforms: eight Euler steps on the oracle, errors against float64 formulas that share
nothing with the library, at the samples; bfloat16 over two steps at mid noise.
Samplers: log2 of the error's gain from halving the step; the number is the order.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
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
        f"| {row.name} | {promise.nfe} | {counted} | {error:.1e} | {narrow:.1e} "
        f"| {drift:.1e} |"
    )


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    print(f"{len(oracle.GRID) - 1} Euler steps, {jnp.zeros(1).device}")
    print(
        "| transform | promised NFE | counted NFE | float32 error | bfloat16 error ",
        end="",
    )
    print("| batched - sequential |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in oracle.KNOWN:
        print(transform_line(row), flush=True)
    print("\n| sampler | order | " + " | ".join(orders.PATHS) + " |")
    print("| --- | --- |" + " --- |" * len(orders.PATHS))
    for name, sampler, order, steps in orders.CASES:
        found = [
            f"{orders.measured(path, sampler, steps):.2f}" for path in orders.PATHS
        ]
        print(f"| {name} | {order} | " + " | ".join(found) + " |", flush=True)


if __name__ == "__main__":
    main()
