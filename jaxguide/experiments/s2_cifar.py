"""S2-Guidance on horses and automobiles of CIFAR-10: features, t-SNE, distances.

    python -m jaxguide.experiments s2_cifar --data cifar-10-batches-bin

A small DiT is trained on the two classes of the user's own copy, with checkpoints: the
same command carries on after an interruption, and `--steps` sets its length. The weak
model of autoguidance is the same network after a tenth of the steps.

Source: Chen et al. 2025, arXiv:2508.12880, Fig. 4 and App. B.1.3.
Differs from the source: features are those of EfficientNet-Lite0, trained on ImageNet,
    where the paper takes CLIP ViT-B/32. Its network, length of training, steps and
    scales are not published.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxguide import data, guidance, losses, models, paths, samplers, train as training
from jaxguide.data.dataset import Dataset, to_uint8
from jaxguide.errors import InputError
from jaxguide.evaluate.features import efficientnet_lite0
from jaxguide.evaluate.kernel import kernel_distance
from jaxguide.experiments import figures, s2_modes
from jaxguide.experiments.report import Report, Setting
from jaxguide.models import load_weights, save_weights
from jaxguide.models.weights import Weights
from jaxguide.runtime.progress import Progress
from jaxguide.sample.build import build_network
from jaxguide.samplers import grids

CLASSES = {1: "automobile", 7: "horse"}  # CIFAR-10's own numbers
EDGE, RECORD = 32, 1 + 3 * 32 * 32  # bytes of an image in the binary version
STEPS = 20  # of sampling
BATCH = 50  # images sampled at a time


def read(path: str) -> Dataset:
    """The two classes of a copy of CIFAR-10.

    Args:
        path: the folder of the binary version (`data_batch_1.bin`, ...), or an `.npz`
            with `x` uint8 [N, 32, 32, 3] and CIFAR-10's labels `y` [N].

    Raises:
        InputError: if there are no such files, or none of the two classes.
    """
    place = Path(path).expanduser()
    files = sorted(place.glob("data_batch_*.bin")) if path else []
    if files:
        records = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        records = records.reshape(-1, RECORD)
        images = records[:, 1:].reshape(-1, 3, EDGE, EDGE).transpose(0, 2, 3, 1)
        labels = records[:, 0].astype(np.int32)
    elif place.suffix == ".npz":
        dataset = data.npz(place)
        images, labels = dataset.images, dataset.labels
    else:
        raise InputError(
            "s2_cifar: need the folder of CIFAR-10's binary version or an .npz of "
            f"x and y, got data={path!r}. Pass --data cifar-10-batches-bin."
        )
    chosen = np.isin(labels, list(CLASSES))
    if set(labels[chosen]) != set(CLASSES):
        raise InputError(
            f"s2_cifar: need images of the classes {CLASSES}, got "
            f"labels={sorted(set(labels.tolist()))!r}. Pass the whole of CIFAR-10."
        )
    own = (labels[chosen] == max(CLASSES)).astype(np.int32)
    return Dataset(np.ascontiguousarray(images[chosen]), own, tuple(CLASSES.values()))


def run(report: Report) -> None:
    """Fills the report."""
    setting = report.setting
    dataset = read(setting.data)
    main, weak = train(setting, dataset)
    count = setting.pick(1000, 40)
    made = {
        name: sample(name, main, weak, transforms, count, setting)
        for name, transforms in s2_modes.arms().items()
    }
    label = np.arange(count) % 2
    real = dataset.images[np.argsort(dataset.labels, kind="stable")]
    extract = features(setting)
    extracted = {name: extract(images) for name, images in made.items()}
    reals = extract(real)
    ends = np.cumsum([0, *np.bincount(dataset.labels, minlength=2)])
    truth = [reals[ends[c] : ends[c + 1]] for c in (0, 1)]
    rows = {
        name: measures([one[label == c] for c in (0, 1)], truth)
        for name, one in extracted.items()
    }
    halves = [(one[::2], one[1::2]) for one in truth]
    rows["data"] = measures(*([pair[i] for pair in halves] for i in (0, 1)))
    report.numbers["cifar"] = rows
    judge(report, rows)
    draw_map(report, extracted, truth, label)
    draw_images(report, made)


def architecture(setting: Setting) -> models.DiTConfig:
    """The network: 64 tokens, two million parameters."""
    return models.DiTConfig(
        image_size=EDGE,
        channels=3,
        patch=setting.pick(4, 8),
        width=setting.pick(128, 8),
        depth=setting.pick(8, 3),
        heads=2,
        num_classes=len(CLASSES),
        remat=True,
    )


def train(setting: Setting, dataset: Dataset) -> tuple[Weights, Weights]:
    """The network and its weak, earlier self; carries on from a checkpoint."""
    model = architecture(setting)
    steps = setting.steps or setting.pick(6000, 4)
    weak = setting.folder / "train" / f"weak-{steps}.safetensors"

    def weights(params: Any) -> Weights:
        names = tuple(CLASSES.values())
        return Weights(params, model, "linear", "velocity", names, {"steps": steps})

    def snapshot(step: int, view: training.View) -> None:
        if step == max(1, steps // 10):
            save_weights(weak, weights(jax.device_get(view.ema_params)))

    loop = training.LoopConfig(
        setting.folder / "train",
        steps,
        log_every=max(1, steps // 50),
        save_every=max(1, steps // 20),
        snapshot_every=max(1, steps // 10),
    )
    experiment = training.Experiment(
        dataset,
        functools.partial(models.init, model),
        _loss(model),
        _optimizer(steps),
        seed=setting.seed,
        batch_size=setting.pick(64, 8),
        flip=True,
        ema=(0.999 if steps > 3000 else 0.99,),
        meta={"data": "s2_cifar", "steps": steps, "seed": setting.seed},
    )
    with training.Stop() as stop, jax.numpy_dtype_promotion("standard"):
        state = training.run(experiment, loop, snapshot, stop=stop)
    if stop.code and int(state.step) < steps:
        print(f"stopped after step {int(state.step)}; the same command carries on")
        raise SystemExit(stop.code)
    return weights(jax.device_get(state.ema_params)), load_weights(weak)


def _optimizer(steps: int) -> optax.GradientTransformation:
    warmup = max(1, steps // 20)
    return training.adamw(
        training.learning_rate("cosine", 1e-3, steps=steps, warmup_steps=warmup)
    )


def _loss(model: models.DiTConfig) -> training.Loss:
    def loss(params: Any, inputs: training.Inputs) -> jax.Array:
        return losses.flow_matching(
            functools.partial(models.apply, model, params),
            inputs.batch,
            inputs.draws,
            path=paths.Linear(),
            null_label=model.null_label,
        )

    return loss


def sample(
    title: str,
    main: Weights,
    weak: Weights,
    transforms: Any,
    count: int,
    setting: Setting,
) -> np.ndarray:
    """Images uint8 [count, 32, 32, 3], both classes in turn; the same noise for all."""
    network, other = build_network(main), build_network(weak)
    batches, progress = [], Progress(title, -(-count // BATCH))
    for start in range(0, count, BATCH):
        keys = samplers.sample_keys(setting.seed, jnp.arange(start, start + BATCH))
        label = jnp.arange(BATCH, dtype=jnp.int32) % 2
        images = samplers.generate(
            network,
            samplers.initial_noise(keys, main.model.image_shape),
            label,
            grid=grids.uniform(setting.pick(STEPS, 2)),
            sampler=samplers.euler(),
            guidance=guidance.chain(*transforms),
            conds={"null": jnp.full_like(label, main.model.null_label)},
            networks={"weak": other},
            key=jax.random.key(start),
        )
        batches.append(to_uint8(np.asarray(images)))
        progress.step()
    progress.close()
    return np.concatenate(batches)[:count]


def features(setting: Setting) -> Callable[[np.ndarray], np.ndarray]:
    """Images to features [N, D]; pixels in a tiny run."""
    if setting.tiny:
        return lambda images: images[:, ::8, ::8].reshape(len(images), -1) / 255.0
    network = efficientnet_lite0()
    return lambda images: np.asarray(network.extract(images).pool)


def measures(made: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, Any]:
    """Distances to the real features of each class, spread, and separation.

    `spread` is the mean distance of features from their class mean over that of real
    ones: below 1 a class has collapsed. `separation` is the share of samples that are
    nearer to their own class's real mean than to the other's, `doubt` its standard
    error.
    """
    means = [one.mean(axis=0) for one in truth]

    def radius(one: np.ndarray) -> float:
        return float(np.linalg.norm(one - one.mean(axis=0), axis=1).mean())

    def nearer(one: np.ndarray, c: int) -> float:
        own, other = (np.linalg.norm(one - means[k], axis=1) for k in (c, 1 - c))
        return float((own < other).mean())

    pairs = list(zip(made, truth, strict=True))
    distance = [kernel_distance(a, b, blocks=5) for a, b in pairs]
    separation = float(np.mean([nearer(a, c) for c, a in enumerate(made)]))
    return {
        "distance": [one.value for one in distance],
        "error": [one.spread for one in distance],
        "spread": float(np.mean([radius(a) / radius(b) for a, b in pairs])),
        "separation": separation,
        "doubt": (separation * (1 - separation) / sum(map(len, made))) ** 0.5,
    }


def judge(report: Report, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The claims of Fig. 4."""

    def line(what: str) -> str:
        return ", ".join(f"{name} {row[what]:.3f}" for name, row in rows.items())

    mean = {name: float(np.mean(row["distance"])) for name, row in rows.items()}
    error = max(max(row["error"]) for row in rows.values())
    plain, cfg, s2 = (rows[name] for name in ("conditional", "CFG", "CFG + S2"))
    report.claim(
        "kernel distance of features to the real ones, automobile / horse",
        "S2 keeps the distribution, closer than CFG and autoguidance (Fig. 4)",
        ", ".join(
            f"{name} {' / '.join(f'{v:.2f}' for v in row['distance'])}"
            for name, row in rows.items()
        )
        + f" (standard errors up to {error:.2f})",
        {
            f"S2 below {other} by two standard errors": mean["CFG + S2"]
            < mean[other] - 2 * error
            for other in ("CFG", "autoguidance")
        },
    )
    report.claim(
        "spread of a class's features over the real ones'",
        "CFG collapses severely, S2 does not (Fig. 4b, e)",
        line("spread"),
        {
            "CFG below 0.9 of the conditional one": cfg["spread"]
            < 0.9 * plain["spread"],
            "S2 above CFG": s2["spread"] > cfg["spread"],
        },
    )
    report.claim(
        "share of samples nearer to their own class's mean",
        "S2 gives more distinct classes than the baseline (App. B.1.3)",
        line("separation"),
        {
            f"S2 above {name} by two standard errors": s2["separation"]
            > other["separation"] + 2 * (s2["doubt"] ** 2 + other["doubt"] ** 2) ** 0.5
            for name, other in (("conditional", plain), ("CFG", cfg))
        },
    )


def draw_map(report: Report, extracted: Mapping[str, np.ndarray], truth, label) -> None:
    """t-SNE of all features together: real ones pale behind the samples of each arm."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    each = min(500, *(len(one) for one in truth), len(label) // 2)
    reals = np.concatenate([one[:each] for one in truth])
    sets = {name: one[: 2 * each] for name, one in extracted.items()}
    everything = np.concatenate([reals, *sets.values()])
    size = min(50, everything.shape[1], len(everything))
    reduced = PCA(size, random_state=0).fit_transform(everything)
    places = TSNE(random_state=0, init="pca", perplexity=20.0).fit_transform(reduced)
    behind, *parts = np.split(places, len(sets) + 1)
    figure, (row,) = figures.panels(len(sets), width=2.4, height=2.7)
    edge = 1.05 * float(np.abs(places).max())
    colours = (figures.ORANGE, figures.BLUE)
    for panel, name, part in zip(row, sets, parts, strict=True):
        for c, colour in enumerate(colours):
            real = behind[c * each : (c + 1) * each]
            figures.scatter(panel, real, edge, color=colour, alpha=0.15, s=12)
            own = part[label[: 2 * each] == c]
            title = tuple(CLASSES.values())[c]
            figures.scatter(panel, own, edge, color=colour, alpha=1, s=3, label=title)
        panel.set(title=name, xticks=[], yticks=[])
    row[0].legend(fontsize="x-small", markerscale=3)
    report.save(figure, "tsne")


def draw_images(report: Report, made: Mapping[str, np.ndarray]) -> None:
    """The first eight images of every arm."""
    figure, axes = figures.panels(1, len(made), width=4.6, height=0.75)
    for panel, (name, images) in zip(axes[:, 0], made.items(), strict=True):
        panel.imshow(np.concatenate(list(images[:8]), axis=1))
        panel.set(xticks=[], yticks=[])
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    report.save(figure, "images")
