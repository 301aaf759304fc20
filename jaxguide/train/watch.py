"""What is looked at during a run: sample grids, weight files, a held-out loss."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import data, losses, models, train
from jaxguide.data.config import build_dataset
from jaxguide.errors import InputError
from jaxguide.evaluate.distances import energy_distance
from jaxguide.models import Weights, save_weights
from jaxguide.models.autoencoders import decoder_of
from jaxguide.paths import PATHS
from jaxguide.runtime import sheets
from jaxguide.runtime.calls import lookup
from jaxguide.train import checks
from jaxguide.train.config import TrainConfig, build_loss, build_model, inherited


def _preview(
    config: TrainConfig, model: models.DiTConfig, per_class: int
) -> train.Preview:
    """Samples of classes that are spread evenly over all."""
    shown = min(config.preview_classes, model.num_classes)
    labels = np.linspace(0, model.num_classes - 1, shown).round().astype(int)
    return train.Preview(
        model=model,
        path=lookup("build_snapshot", config.loss.path, PATHS)(),
        kind=config.loss.kind,
        labels=tuple(labels.tolist()),
        per_class=per_class,
        scale=config.preview_scale,
        seed=config.seed,
    )


def build_snapshot(config: TrainConfig, dataset: data.Source) -> train.Snapshot:
    """Writes averaged weights and a sample grid into the folder of the run.

    Raises:
        InputError: if the autoencoder of the preview is missing or does not fit.
    """
    model = build_model(config, dataset)
    preview = _preview(config, model, config.preview_per_class)
    preview.check()
    names = [dataset.class_names[label] for label in preview.labels]
    folder = Path(config.folder).expanduser()
    guided_channels, latents = inherited(config, model)
    file, channels = config.preview_autoencoder, dataset.image_shape[-1]
    decode = decoder_of("build_snapshot", file, channels) if file else None

    def snapshot(step: int, view: train.View) -> None:
        note = {"data": config.data.name, "steps": step, "seed": config.seed}
        weights = Weights(
            params=view.ema_params,
            model=model,
            path=config.loss.path,
            kind=config.loss.kind,
            class_names=dataset.class_names,
            note=note | {"batch_size": config.batch_size},
            guided_channels=guided_channels,
            latents=latents,
        )
        save_weights(folder / "weights.safetensors", weights)
        images = preview(view.ema_params)
        title = f"step {step}"
        if decode is not None:
            images = np.stack([np.asarray(decode(jnp.asarray(x0))) for x0 in images])
        elif dataset.is_latent:
            images, title = sheets.false_colours(images), f"{title}, latents"
        file = folder / "samples" / f"{step:06d}.png"
        sheets.write_sheet(file, {title: images}, names)

    return snapshot


def build_evaluation(
    config: TrainConfig, dataset: data.Source
) -> train.Evaluate | None:
    """Numbers of the averaged weights on unseen images, always with the same noise.

    The loss; and with `config.loss.auto_weight` the weight that Model-Guidance goes on
    with, by the energy distance of samples to as many unseen images.

    Returns:
        A function to `{"eval_loss": ...}`, or None if `config.evaluate_every` is 0.

    Raises:
        InputError: if the data set has no such split, or an automatic weight is never
            evaluated.
    """
    automatic = config.loss.auto_weight
    if not config.evaluate_every:
        if automatic:
            raise InputError(
                "build_evaluation: need evaluate_every > 0 for auto_weight, got "
                "evaluate_every=0. Set it to some hundred steps."
            )
        return None
    model = build_model(config, dataset)
    held = build_dataset(dataclasses.replace(config.data, split=config.evaluate_split))
    count = config.evaluate_images
    x0, label = data.batch(held, 0, batch_size=count, seed=config.seed)
    checks.check_examples("build_evaluation", x0, label)
    batch = jnp.asarray(x0), jnp.asarray(label)
    loss = build_loss(config.loss, model)
    drawn = losses.draws(jax.random.key(config.seed), count)
    tune = _weight_tuner(config, model, x0) if automatic else None

    @jax.jit
    def mean_loss(view: train.View) -> jax.Array:
        inputs = train.Inputs(view.ema_params, batch, drawn, view.step, view.tuned)
        return loss(view.ema_params, inputs).mean()

    def evaluate(step: int, view: train.View) -> dict[str, float]:
        tuned = tune(step, view) if tune else {}
        return {"eval_loss": float(mean_loss(view)), **tuned}

    return evaluate


def _weight_tuner(
    config: TrainConfig, model: models.DiTConfig, reals: np.ndarray
) -> train.Evaluate:
    """The rule of `losses.auto_weight`, with samples of as many images as `reals`."""
    classes = min(config.preview_classes, model.num_classes)
    preview = _preview(config, model, max(len(reals) // classes, 1))
    window = dict(t_lo=config.loss.t_lo, t_hi=config.loss.t_hi)

    def sample(params: Any, scale: float) -> np.ndarray:
        images = dataclasses.replace(preview, scale=scale, **window)(params)
        return images.reshape(-1, *model.image_shape)

    def quality(samples: np.ndarray) -> float:
        return energy_distance(samples, reals)

    return losses.auto_weight(sample, quality)
