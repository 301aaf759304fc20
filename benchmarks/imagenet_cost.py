"""What SiT-XL/2 on ImageNet takes from nothing to an FID, by the FLOP count.

    python -m benchmarks.imagenet_cost

Nothing is run. FLOPs of the transformer are those of `jaxguide.models.flops`, those of
convolutions what XLA counts in the traced programs. Hours are for `--tflops` of useful
work per second in all.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from jaxguide import models
from jaxguide.models import AutoencoderKLConfig, autoencoder_kl, inception

TRAINING, SAMPLES = 1_281_167, 50_000
BATCH = 256
STEPS = (400_000, 7_000_000)
GUIDED_FROM = 100_000  # where Model-Guidance starts
EVALUATIONS = 250


def counted(
    function: Callable[..., Any], init: Callable[..., Any], *shape: int
) -> float:
    """FLOPs of one image through a network, as XLA counts its program."""
    params = jax.eval_shape(init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    analysis = jax.jit(function).lower(params, x).cost_analysis()
    return float(analysis["flops"])


def rows() -> list[tuple[str, str, float]]:
    """Work, how it is counted, and its FLOPs."""
    kl = AutoencoderKLConfig()
    forward = float(models.flops(models.dit_config("XL/2", image_size=32))[0])
    encode = counted(
        lambda params, x: autoencoder_kl.encode(kl, params, x),
        lambda key: autoencoder_kl.init(kl, key),
        *(256, 256, 3),
    )
    decode = counted(
        lambda params, x: autoencoder_kl.decode(kl, params, x),
        lambda key: autoencoder_kl.init(kl, key),
        *(32, 32, 4),
    )
    judge = counted(inception.layers, inception.init, 299, 299, 3)
    tasks = [("encode", f"{2 * TRAINING:,} images", 2 * TRAINING * encode)]
    example = 3 * forward * BATCH
    for steps in STEPS:
        name, guided = f"train, {steps:,} steps", steps - GUIDED_FROM
        tasks.append((name, f"{BATCH} examples each", example * steps))
        how = "two passes of the average more"
        more = example * (steps + guided * 2 / 3)
        tasks.append((f"{name}, Model-Guidance", how, more))
    for name, passes in (("no guidance, or MG", 1), ("CFG", 2)):
        total = SAMPLES * EVALUATIONS * passes * forward
        tasks.append((f"sample, {name}", f"{EVALUATIONS * passes} evaluations", total))
    tasks.append(("decode", f"{SAMPLES:,} images", SAMPLES * decode))
    tasks.append(("evaluate", "Inception, samples", SAMPLES * judge))
    return tasks


def hours(value: float) -> str:
    """Two digits below ten."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser("benchmarks.imagenet_cost")
    parser.add_argument("--tflops", type=float, default=400.0, help="TFLOP/s, useful")
    speed = parser.parse_args().tflops * 1e12
    head = ["work", "counted", "FLOP", "hours"]
    table = [
        [name, how, f"{flops:.1e}", hours(flops / speed / 3600)]
        for name, how, flops in rows()
    ]
    print(timing.table(head, table))


if __name__ == "__main__":
    main()
