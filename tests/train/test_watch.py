"""What a run looks at while it goes on: pictures, the held-out loss, the weight."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import data, train as training
from jaxguide.data import config as data_config
from jaxguide.data.config import DataConfig
from jaxguide.models import tiny_autoencoder
from jaxguide.models.autoencoders import Autoencoder, save_autoencoder
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from jaxguide.runtime import sheets
from jaxguide.train import __main__ as train, config, watch
from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from tests.drawn import drawn

FAST_COMPILE = True


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def settings(folder, **changes):
    small = config.tiny(TrainConfig(model=ModelConfig(remat=False)))
    fields = dict(folder=str(folder), steps=4, evaluate_every=2, evaluate_images=8)
    return dataclasses.replace(small, **(fields | changes))


def numbers(folder, name):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row[name] for row in map(json.loads, lines) if name in row]


def automatic(folder):
    """Final state, the weights that were logged, and those that evaluations saw."""
    loss = LossConfig(name="model_guidance", auto_weight=True)
    run = settings(folder, loss=loss, preview_classes=2)
    dataset = data_config.build_dataset(run.data)
    evaluation, seen = watch.build_evaluation(run, dataset), []

    def evaluate(step, view):
        seen.append(float(view.tuned["weight"]))
        return evaluation(step, view)

    experiment = config.build_experiment(run, dataset)
    state = training.run(experiment, config.build_loop(run), evaluate=evaluate)
    return state, numbers(folder, "weight"), seen


@pytest.mark.exhaustive
def test_a_tuned_weight_is_logged_and_takes_effect(tmp_path, monkeypatch):
    def tuner(*_):
        return lambda step, view: {"weight": 0.1 * step}

    monkeypatch.setattr(watch, "_weight_tuner", tuner)
    state, weights, seen = automatic(tmp_path)
    assert weights == pytest.approx([0.2, 0.4]) and seen == pytest.approx([0.0, 0.2])
    assert float(state.tuned["weight"]) == pytest.approx(0.4)


@pytest.mark.exhaustive
def test_an_automatic_weight_comes_from_samples(tmp_path):
    state, weights, _ = automatic(tmp_path)
    assert len(weights) == 2 and all(0 <= weight <= 0.75 for weight in weights)
    assert float(state.tuned["weight"]) == pytest.approx(weights[-1])


@pytest.mark.exhaustive
def test_a_run_on_latents_shows_colours_and_the_loss_of_the_averages(tmp_path):
    made = DataConfig(name="made_latents", size=8, classes=3)
    run = settings(tmp_path, data=made)
    train.run(run)
    assert (tmp_path / "samples" / "000004.png").stat().st_size > 0
    found = numbers(tmp_path, "eval_loss")
    assert len(found) == 2
    # A fresh network returns zeros: it pays 1 + the mean square of the examples.
    x0, _ = data.batch(data_config.build_dataset(made), 0, batch_size=8, seed=0)
    assert found[0] == pytest.approx(1 + np.mean(x0**2), rel=0.15)
    assert numbers(tmp_path, "images_per_second")[0] > 0
    assert numbers(tmp_path, "flops_per_second")[0] > 0


def test_previews_of_latents_are_decoded_where_an_autoencoder_is_named(
    tmp_path, monkeypatch
):
    """The same samples as without, seen through the autoencoder."""
    x0 = np.random.default_rng(0).standard_normal((3, 2, 8, 8, 4)).astype(np.float32)
    monkeypatch.setattr(training.Preview, "__call__", lambda self, params: x0)
    architecture = TinyAutoencoderConfig(4, 4, (0, 1), (1, 0))
    params = drawn(tiny_autoencoder.init, architecture)
    file = tmp_path / "vae.safetensors"
    save_autoencoder(file, Autoencoder(architecture, params, 0.5, 0.25))
    shown = []

    def write_sheet(path, blocks, names):
        shown.extend(blocks.values())

    monkeypatch.setattr(sheets, "write_sheet", write_sheet)
    monkeypatch.setattr(sheets, "false_colours", lambda latents: latents)
    run = settings(tmp_path, data=DataConfig(name="made_latents", size=8, classes=3))
    dataset = data_config.build_dataset(run.data)
    for name in ("", str(file)):
        chosen = dataclasses.replace(run, preview_autoencoder=name)
        snapshot = watch.build_snapshot(chosen, dataset)
        snapshot(1, training.View(jnp.int32(1), {"w": jnp.ones(1)}, {}))
    np.testing.assert_array_equal(shown[0], x0)
    images = shown[1]
    assert images.shape == (3, 2, 16, 16, 3)
    latents = x0.reshape(6, 8, 8, 4) / 0.5 + 0.25
    expected = tiny_autoencoder.decode(architecture, params, latents)
    np.testing.assert_allclose(
        images.reshape(6, 16, 16, 3), expected.clip(-1, 1), atol=1e-5
    )
    wrong = DataConfig(name="digits")
    dataset = data_config.build_dataset(wrong)
    with pytest.raises(ValueError, match="need an autoencoder of 1 latent channels"):
        watch.build_snapshot(chosen, dataset)


def test_false_colours_are_the_first_channels():
    colours = sheets.false_colours(np.full((2, 4, 4, 4), 3.0))
    np.testing.assert_array_equal(colours, np.ones((2, 4, 4, 3)))


def test_mistakes_are_named(tmp_path):
    dataset = data.digits()
    loss = LossConfig(name="model_guidance", auto_weight=True)
    run = settings(tmp_path, loss=loss, evaluate_every=0)
    with pytest.raises(ValueError, match="need evaluate_every > 0 for auto_weight"):
        watch.build_evaluation(run, dataset)
    run = settings(tmp_path, loss=LossConfig(auto_weight=True))
    with pytest.raises(ValueError, match="need name='model_guidance' for auto_weight"):
        config.build_experiment(run, dataset)
