"""What is looked at during a run: sample grids, weight files, a held-out loss."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import data, losses, pictures, training
from jaxguide.checkpoints import Weights, save_weights
from jaxguide.config import TrainConfig, build_dataset, build_loss, build_model
from jaxguide.config_losses import PATHS
from jaxguide.names import lookup


def build_snapshot(config: TrainConfig, dataset: data.Source) -> training.Snapshot:
    """Writes averaged weights and a sample grid into the folder of the run."""
    model = build_model(config, dataset)
    shown = min(config.preview_classes, dataset.num_classes)
    labels = np.linspace(0, dataset.num_classes - 1, shown).round().astype(np.int32)
    preview = training.Preview(
        model=model,
        path=lookup("build_snapshot", config.loss.path, PATHS)(),
        kind=config.loss.kind,
        labels=tuple(labels.tolist()),
        per_class=config.preview_per_class,
        scale=config.preview_scale,
        seed=config.seed,
    )
    names = [dataset.class_names[label] for label in labels]
    folder = Path(config.folder).expanduser()

    def snapshot(step: int, view: training.View) -> None:
        note = {"data": config.data.name, "steps": step, "seed": config.seed}
        weights = Weights(
            params=view.ema_params,
            model=model,
            path=config.loss.path,
            kind=config.loss.kind,
            class_names=dataset.class_names,
            note=note | {"batch_size": config.batch_size},
        )
        save_weights(folder / "weights.safetensors", weights)
        images = preview(view.ema_params)
        title = f"step {step}"
        if dataset.is_latent:
            images, title = pictures.false_colours(images), f"{title}, latents"
        file = folder / "samples" / f"{step:06d}.png"
        pictures.write_sheet(file, {title: images}, names)

    return snapshot


def build_evaluation(
    config: TrainConfig, dataset: data.Source
) -> training.Evaluate | None:
    """The loss of the averaged weights on unseen images, always with the same noise.

    Returns:
        A function to `{"eval_loss": ...}`, or None if `config.evaluate_every` is 0.

    Raises:
        ValueError: if the data set has no such split.
    """
    if not config.evaluate_every:
        return None
    held = build_dataset(dataclasses.replace(config.data, split=config.evaluate_split))
    count = config.evaluate_images
    x0, label = data.batch(held, 0, batch_size=count, seed=config.seed)
    batch = jnp.asarray(x0), jnp.asarray(label)
    loss = build_loss(config.loss, build_model(config, dataset))
    drawn = losses.draws(jax.random.key(config.seed), count)

    @jax.jit
    def mean_loss(view: training.View) -> jax.Array:
        inputs = training.Inputs(view.ema_params, batch, drawn, view.step, view.tuned)
        return loss(view.ema_params, inputs).mean()

    def evaluate(step: int, view: training.View) -> dict[str, float]:
        del step
        return {"eval_loss": float(mean_loss(view))}

    return evaluate
