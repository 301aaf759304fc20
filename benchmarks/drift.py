"""How far one forward pass of all branches drifts from one pass per branch.

    python -m benchmarks.drift --model S/2

The two differ only in the order of floating-point sums. Prints the differences of the
samples, as rms relative to the rms of the float32 samples, for float32 and bfloat16
computation; and bfloat16 against float32, which is what the drift should be read by.
"""

import argparse
from typing import Any

import numpy as np

import jaxguide as jg
from benchmarks import sampling, timing


def chains(scale: float) -> dict[str, jg.Chain]:
    """Guidance whose branches share a forward pass when batched."""
    whole = dict(t_lo=0.0, t_hi=1.0)
    return {
        "cfg": jg.chain(jg.cfg(scale)),
        "cfg + sg": jg.chain(jg.cfg(scale), jg.sg(1.0)),
        "cfg + sg_prev": jg.chain(jg.cfg(scale), jg.sg_prev(1.0, **whole)),
    }


def samples(options: argparse.Namespace, dtype: str) -> dict[tuple[str, bool], Any]:
    """Images of every chain, separate (False) and batched (True), same weights."""
    options.dtype, options.no_torch = dtype, True
    task = sampling.make_task(options.model, options)
    images = {}
    for name, guidance in chains(options.scale).items():
        for batched in (False, True):
            row = sampling.Row(guidance, batched)
            run, _ = sampling.compile_sampler(task, row)
            images[name, batched] = run().astype(np.float64)
    return images


def drift(images: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of `wanted`."""
    return float(np.sqrt(np.mean((images - wanted) ** 2) / np.mean(wanted**2)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser("benchmarks.drift")
    parser.add_argument("--model", default="S/2")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="Euler steps")
    parser.add_argument("--scale", type=float, default=4.0, help="of CFG")
    options = parser.parse_args()
    exact, rough = (samples(options, dtype) for dtype in ("float32", "bfloat16"))
    print(
        f"DiT-{options.model}, random weights, batch {options.batch}, {options.steps} "
        f"Euler steps, CFG {options.scale:g}; {timing.machine()['processor']}"
    )
    rows = [
        [
            name,
            f"{drift(exact[name, True], exact[name, False]):.1e}",
            f"{drift(rough[name, True], rough[name, False]):.1e}",
            f"{drift(rough[name, False], exact[name, False]):.1e}",
        ]
        for name in chains(options.scale)
    ]
    head = ["chain", "batched, float32", "batched, bfloat16", "bfloat16 to float32"]
    print(timing.table(head, rows))


if __name__ == "__main__":
    main()
