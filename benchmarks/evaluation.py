"""Seconds and memory of an evaluation, without the network.

    python -m benchmarks.evaluation --count 50000 --metrics fd
    python -m benchmarks.evaluation --count 10000 --metrics fd,kd,precision,density

Features of 2,048 numbers are made from random images by a product with a matrix; then
they take the way of all features: files, moments, measures, by ADM's protocol. Prints
the seconds of every part and the largest memory of the process.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from jaxguide.evaluate import measures, protocols
from jaxguide.evaluate.features import FeatureNetwork, Features
from jaxguide.evaluate.measures import Sample
from jaxguide.evaluate.reference import Reference
from jaxguide.evaluate.store import Store, extract

SIZE, EDGE = 2048, 16


class Made:
    """Random images, made when they are read."""

    shape = (EDGE, EDGE, 3)

    def __init__(self, count: int, seed: int):
        self._count, self._seed = count, seed
        self.identity = f"made {seed}"

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> np.ndarray:
        """Images `start` .. `stop` - 1."""
        rng = np.random.default_rng([self._seed, start])
        return rng.integers(0, 256, (stop - start, *self.shape), np.uint8)


def network() -> FeatureNetwork:
    """Rectified products with a random matrix."""

    def apply(params: Any, x: jax.Array) -> Features:
        return Features(jax.nn.relu(x.reshape(len(x), -1) @ params))

    inputs = EDGE * EDGE * 3
    return FeatureNetwork(
        name="made",
        size=SIZE,
        protocol="made",
        prepare=lambda images: images.astype(jnp.float32) / 255 - 0.5,
        apply=apply,
        params=jax.random.normal(jax.random.key(0), (inputs, SIZE)) / inputs**0.5,
        batch_size=500,
        frechet="FD-made",
        kernel="KD-made",
    )


def timed(title: str, call: Callable[[], Any], rows: list[list[str]]) -> Any:
    """What `call` returns; notes seconds and the largest memory until now."""
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append([title, f"{seconds:.1f}", f"{gigabytes:.2f}"])
    print(rows[-1], flush=True)
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser("benchmarks.evaluation")
    parser.add_argument("--count", type=int, default=10_000, help="images of each set")
    parser.add_argument("--metrics", default="fd", help="names, joined by commas")
    options = parser.parse_args()
    made, rows = network(), []
    with tempfile.TemporaryDirectory() as cache:
        folders = [
            timed(
                f"features of {name}",
                lambda seed=seed: extract(Made(options.count, seed), made, cache),
                rows,
            )
            for seed, name in enumerate(("samples", "reference"))
        ]
        stores = [Store(folder) for folder in folders]
        reference = timed("statistics", lambda: Reference.of_store(stores[1]), rows)
        sample = Sample.of_store(stores[0])
        for name in options.metrics.split(","):
            title = measures.title(name, made)
            timed(
                title,
                lambda name=name: measures.measure(
                    [name], sample, reference, protocols.ADM
                ),
                rows,
            )
    print(f"{options.count} images; {timing.machine()}")
    print(timing.table(["part", "seconds", "GiB"], rows))


if __name__ == "__main__":
    main()
