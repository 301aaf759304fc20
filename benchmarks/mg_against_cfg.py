"""A network trained with Model-Guidance beside one that is sampled with CFG.

    python -m jaxguide.train --config configs/mg_fashion.py:plain
    python -m jaxguide.train --config configs/mg_fashion.py:mg
    python -m benchmarks.mg_against_cfg --folder outputs/mg-fashion

Both have one architecture, budget and seed. Prints for each way of sampling the
evaluations per image, an energy distance to unseen images, and how often a classifier
by nearest neighbours, fitted to the training images, names the class that was asked
for; the last two in 64 principal components of the pixels, a fixed space that knows
nothing of perception. The floor is what real images reach. Writes samples from the same
noise and the loss curves as pictures.
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

import jaxguide as jg
from benchmarks import timing
from jaxguide import data
from jaxguide.evaluate.distances import energy_distance
from jaxguide.models import load_weights
from jaxguide.runtime import sheets as pictures
from jaxguide.sample.build import build_network

STEPS, CHUNK, COMPONENTS = 50, 250, 64
SHOWN = ("plain", "plain, CFG 1.82", "MG")


def arms(scale: float, t_hi: float) -> dict[str, tuple[str, jg.Chain]]:
    """title -> (which network, guidance): the learnt scale, one below, one above."""

    def cfg(s: float) -> jg.Chain:
        return jg.chain(jg.cfg(s, t_lo=0.0, t_hi=t_hi))

    return {
        "plain": ("plain", jg.chain()),
        f"plain, CFG {(1 + scale) / 2:.2f}": ("plain", cfg((1 + scale) / 2)),
        f"plain, CFG {scale:.2f}": ("plain", cfg(scale)),
        f"plain, CFG {2 * scale - 1:.2f}": ("plain", cfg(2 * scale - 1)),
        "MG": ("mg", jg.chain()),
    }


def sample(
    network: jg.Network, guidance: jg.Chain, labels: np.ndarray, shape: tuple, null: int
) -> np.ndarray:
    """Images [N, H, W, C]; image i starts from the same noise in every arm."""
    grid, batches = jg.uniform(STEPS), []
    for first in range(0, len(labels), CHUNK):
        label = jnp.asarray(labels[first : first + CHUNK])
        keys = jg.sample_keys(0, np.arange(first, first + len(label)))
        images = jg.generate(
            network,
            jg.initial_noise(keys, shape),
            label,
            grid=grid,
            sampler=jg.euler(),
            guidance=guidance,
            conds={"null": jnp.full_like(label, null)},
        )
        batches.append(np.asarray(images))
    return np.concatenate(batches)


def read_losses(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """run -> (step, loss) of its log lines."""
    curves = {}
    for run in ("plain", "mg"):
        lines = (folder / run / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        curves[run] = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    return curves


def draw_losses(curves: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """Both curves over steps, and their difference."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(
        2, figsize=(6, 5), layout="constrained", sharex=True
    )
    for run, points in curves.items():
        above.plot(*zip(*points[4:], strict=True), label=run)
    steps = [step for step, _ in curves["plain"]]
    change = [
        b - a for (_, a), (_, b) in zip(curves["plain"], curves["mg"], strict=True)
    ]
    below.plot(steps, change, color="tab:green")
    above.set(ylabel="loss, each of its own target")
    below.set(xlabel="step", ylabel="mg - plain")
    above.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    """Prints the table and writes both pictures."""
    parser = argparse.ArgumentParser("benchmarks.mg_against_cfg")
    parser.add_argument("--folder", type=Path, default=Path("outputs/mg-fashion"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/images/mg"))
    parser.add_argument("--count", type=int, default=2000, help="images per arm")
    parser.add_argument("--weight", type=float, default=0.45, help="of the MG run")
    parser.add_argument("--t_hi", type=float, default=0.75, help="end of its window")
    options = parser.parse_args()

    weights = {
        run: load_weights(options.folder / run / "weights.safetensors")
        for run in ("plain", "mg")
    }
    model = weights["mg"].model
    labels = np.arange(options.count, dtype=np.int32) % model.num_classes
    train, test = (data.fashion_mnist(split=split) for split in ("train", "test"))

    def flat(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)

    space = PCA(COMPONENTS, random_state=0).fit(flat(data.to_unit(train.images)))

    def features(images: np.ndarray) -> np.ndarray:
        return space.transform(flat(images))

    nearest = KNeighborsClassifier(5).fit(
        features(data.to_unit(train.images)), train.labels
    )
    # Two halves of the test set, with equal numbers of every class, as the samples.
    by_class = np.argsort(test.labels, kind="stable")
    every = np.linspace(0, len(by_class) // 2 - 1, options.count).astype(int)
    chosen = [by_class[half::2][every] for half in (0, 1)]
    halves = [features(data.to_unit(test.images[half])) for half in chosen]
    real = test.labels[chosen[1]]
    floor = energy_distance(*halves)
    hits = float((nearest.predict(halves[1]) == real).mean())
    rows = [["real images (floor)", "", f"{floor:.4f}", f"{hits:.3f}"]]
    sheets = {}
    for title, (run, guidance) in arms(1 / (1 - options.weight), options.t_hi).items():
        network = build_network(weights[run])
        nfe = jg.cost(network, guidance, jg.uniform(STEPS), jg.euler()).nfe
        images = sample(network, guidance, labels, model.image_shape, model.null_label)
        sample_features = features(np.clip(images, -1, 1))
        right = float((nearest.predict(sample_features) == labels).mean())
        distance = energy_distance(sample_features, halves[0])
        rows.append([title, str(nfe), f"{distance:.4f}", f"{right:.3f}"])
        print(rows[-1], flush=True)
        shown = images[: 6 * model.num_classes].reshape(6, -1, *model.image_shape)
        if title in SHOWN:
            sheets[f"{title} ({nfe} NFE)"] = shown.swapaxes(0, 1)
    head = ["sampling", "NFE", "energy distance", "class found"]
    print(f"{options.count} images each; {timing.machine()['processor']}")
    print(timing.table(head, rows))
    options.pictures.mkdir(parents=True, exist_ok=True)
    pictures.write_sheet(
        options.pictures / "grid.png", sheets, train.class_names, zoom=2
    )
    draw_losses(read_losses(options.folder), options.pictures / "loss.png")


if __name__ == "__main__":
    main()
