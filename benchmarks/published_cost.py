"""What sampling 50,000 images of the published configs takes, by the FLOP count.

    python -m benchmarks.published_cost

Nothing is run: evaluations and FLOPs are those that `jaxguide.sample` promises. Hours
are for `--tflops` of useful work per second.
"""

import argparse
import runpy
from pathlib import Path

from benchmarks import timing
from jaxguide import models, samplers
from jaxguide.guidance import Network
from jaxguide.paths import PATHS
from jaxguide.sample import build

CONFIGS = Path(__file__).parent.parent / "configs"
IMAGES = 50_000
# config: edge of the latents, path, published FID
PUBLISHED = {
    "dit_xl2_256": (32, "ddpm", "2.27"),
    "dit_xl2_512": (64, "ddpm", "3.04"),
    "sit_xl2_ode": (32, "linear", "2.15"),
    "sit_xl2_sde": (32, "linear", "2.06"),
    "sit_xl2_repa": (32, "linear", "1.42"),
    "sit_xl2_mg": (32, "linear", "1.34"),
}


def row(name: str, tflops: float) -> list[str]:
    """One config: evaluations, FLOPs per image, FLOPs in all, hours, published FID."""
    edge, path, published = PUBLISHED[name]
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]("fid")
    sampler = build.parse_sampler(config.sampler)
    if isinstance(sampler, build.Adaptive):
        return [name, "counted", "", "", "", published]
    total, block = models.flops(models.dit_config("XL/2", image_size=edge))
    network = Network(
        predict=lambda *_: None,
        path=PATHS[path](),
        depth=28,
        flops=float(total),
        block_flops=float(block),
    )
    (chain,) = build.build_columns(config).values()
    grid = build.build_grid(config, network.path)
    cost = samplers.cost(network, chain, grid, sampler)
    assert cost.flops is not None
    flops = cost.flops * IMAGES
    hours = flops / (tflops * 1e12) / 3600
    return [
        name,
        str(cost.nfe),
        f"{cost.flops / 1e12:.0f}",
        f"{flops:.1e}",
        f"{hours:.1f}",
        published,
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser("benchmarks.published_cost")
    parser.add_argument("--tflops", type=float, default=400.0, help="TFLOP/s, useful")
    tflops = parser.parse_args().tflops
    head = ["config", "NFE", "TFLOP per image", "FLOP", "hours", "published FID"]
    print(timing.table(head, [row(name, tflops) for name in PUBLISHED]))


if __name__ == "__main__":
    main()
