"""Imported checkpoints of full size against other implementations.

Random weights in the published layout of DiT and of SiT. DiT runs in diffusers too,
SiT in plain PyTorch (tests/sit_torch.py): one forward pass, and ten steps of guided
sampling with the same noise. Prints the largest difference beside the largest value.

Run:      python -m benchmarks.import_parity --model XL/2
Needs:    torch, diffusers; about 9 GB of memory for XL/2; from the source tree
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import jaxguide as jg
from jaxguide import models
from jaxguide.convert import read_published
from jaxguide.models import Weights
from jaxguide.sample import build
from tests import diffusers_dit, sit_torch

SCALE, CLASSES = 1.5, 1000
LABELS = np.array([207, 360], np.int32)
NULLS = np.full(2, CLASSES, np.int32)


def imported(state: dict[str, torch.Tensor], format: str) -> Weights:
    """The weights that a file with this state dict becomes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.pt"
        torch.save(state, path)
        return read_published(path, format)


def noise(edge: int) -> np.ndarray:
    """Where both start."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, edge, edge, 4)).astype(np.float32)


def sampled(weights: Weights, x: np.ndarray, sampler: Any, grid: np.ndarray):
    """Our forward pass at t = 0.5 and our guided samples."""
    params = jax.tree.map(jnp.asarray, weights.params)
    weights = weights._replace(params=params)
    network = build.build_network(weights)
    labels, start = jnp.asarray(LABELS), jnp.asarray(x)
    forward = jax.jit(models.apply, static_argnums=0)
    output = forward(weights.model, params, start, jnp.full(2, 0.5), labels)
    chain = jg.chain(jg.cfg(SCALE), jg.guided_channels(weights.guided_channels))
    images = jg.generate(
        network,
        start,
        labels,
        grid=grid,
        sampler=sampler,
        guidance=chain,
        conds={"null": jnp.asarray(NULLS)},
    )
    return np.asarray(output), np.asarray(images)


def guided(output: torch.Tensor) -> torch.Tensor:
    """The first three channels guided, the others of the first half."""
    cond, null = output.double().chunk(2)
    first = null[:, :3] + SCALE * (cond[:, :3] - null[:, :3])
    return torch.cat([first, cond[:, 3:]], 1)


@torch.no_grad()
def dit(name: str, edge: int, steps: int) -> None:
    """DiT in diffusers; DDIM, written out, on DiT's respaced timesteps."""
    config = models.dit_config(name, image_size=edge, learn_sigma=True)
    network = diffusers_dit.their_network(config, std=0.02)
    diffusers_dit.use_official_frequencies(network)
    weights = imported(diffusers_dit.official_state(network), "dit")
    both = torch.from_numpy(np.concatenate([LABELS, NULLS]))
    x = noise(edge)
    # Timestep 499 sits at t = 0.5.
    output = network(sit_torch.nchw(x), torch.tensor([499, 499]), both[:2]).sample
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    timesteps = np.round(np.linspace(0, 999, steps)).astype(int)[::-1]
    state = sit_torch.nchw(x).double() * (1 - bars[999]).sqrt()
    for now, then in zip(timesteps, [*timesteps[1:], -1], strict=True):
        doubled = torch.cat([state, state]).float()
        eps = guided(network(doubled, torch.full((4,), int(now)), both).sample)[:, :4]
        bar = bars[now]
        x0 = (state - (1 - bar).sqrt() * eps) / bar.sqrt()
        bar = bars[then] if then >= 0 else torch.ones(()).double()
        state = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    del network
    gc.collect()
    ours = sampled(weights, x, jg.ddim(), jg.respaced(steps))
    report(f"DiT-{name} against diffusers", ours, (output, state))


@torch.no_grad()
def sit(name: str, edge: int, steps: int) -> None:
    """SiT in plain PyTorch, Euler steps in its own time."""
    size = models.dit_config(name)
    state = sit_torch.random_state(
        width=size.width,
        depth=size.depth,
        patch=size.patch,
        outputs=8,
        edge=edge // size.patch,
        rows=CLASSES + 1,
        std=0.1,
    )
    weights = imported(state, "sit")

    def run(x: torch.Tensor, t: float, labels: np.ndarray) -> torch.Tensor:
        times = torch.full((len(x),), t)
        labels = torch.from_numpy(labels).long()
        return sit_torch.forward(state, x, times, labels, heads=size.heads)[:, :4]

    x = noise(edge)
    output = -run(sit_torch.nchw(x), 0.5, LABELS)
    images, both = sit_torch.nchw(x).double(), np.concatenate([LABELS, NULLS])
    for i in range(steps):
        doubled = torch.cat([images, images]).float()
        images = images + guided(run(doubled, i / steps, both)) / steps
    ours = sampled(weights, x, jg.euler(), jg.uniform(steps))
    report(f"SiT-{name} against PyTorch", ours, (output, images))


def report(title: str, ours: tuple, theirs: tuple) -> None:
    """Prints both differences."""
    for what, a, b in zip(("forward", "sampling"), ours, theirs, strict=True):
        b = sit_torch.nhwc(b)
        a = a[..., : b.shape[-1]]
        gap, size = np.abs(a - b).max(), np.abs(b).max()
        print(f"{title}, {what}: max |difference| {gap:.2e} of {size:.3g}", flush=True)


def main() -> None:
    """Prints two lines per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="XL/2")
    parser.add_argument("--edge", type=int, default=32, help="of the latents")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    for run in (dit, sit):
        start = time.perf_counter()
        run(options.model, options.edge, options.steps)
        gc.collect()
        print(f"{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
