"""What a run looks at while it goes on: pictures, the held-out loss, the weight."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxguide import config, config_watch, data, pictures, train, training
from jaxguide.config import DataConfig, LossConfig, ModelConfig, TrainConfig

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
    dataset = config.build_dataset(run.data)
    evaluation, seen = config_watch.build_evaluation(run, dataset), []

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

    monkeypatch.setattr(config_watch, "_weight_tuner", tuner)
    state, weights, seen = automatic(tmp_path)
    assert weights == pytest.approx([0.2, 0.4]) and seen == pytest.approx([0.0, 0.2])
    assert float(state.tuned["weight"]) == pytest.approx(0.4)


@pytest.mark.exhaustive
def test_an_automatic_weight_comes_from_samples(tmp_path):
    state, weights, _ = automatic(tmp_path)
    assert len(weights) == 2 and all(0 <= weight <= 0.75 for weight in weights)
    assert float(state.tuned["weight"]) == pytest.approx(weights[-1])


def test_a_run_on_latents_shows_colours_and_the_loss_of_the_averages(tmp_path):
    made = DataConfig(name="made_latents", size=8, classes=3)
    run = settings(tmp_path, data=made)
    train.run(run)
    assert (tmp_path / "samples" / "000004.png").stat().st_size > 0
    found = numbers(tmp_path, "eval_loss")
    assert len(found) == 2
    # A fresh network returns zeros: it pays 1 + the mean square of the examples.
    x0, _ = data.batch(config.build_dataset(made), 0, batch_size=8, seed=0)
    assert found[0] == pytest.approx(1 + np.mean(x0**2), rel=0.15)
    assert numbers(tmp_path, "images_per_second")[0] > 0
    assert numbers(tmp_path, "flops_per_second")[0] > 0


def test_false_colours_are_the_first_channels():
    colours = pictures.false_colours(np.full((2, 4, 4, 4), 3.0))
    np.testing.assert_array_equal(colours, np.ones((2, 4, 4, 3)))


def test_mistakes_are_named(tmp_path):
    dataset = data.digits()
    loss = LossConfig(name="model_guidance", auto_weight=True)
    run = settings(tmp_path, loss=loss, evaluate_every=0)
    with pytest.raises(ValueError, match="need evaluate_every > 0 for auto_weight"):
        config_watch.build_evaluation(run, dataset)
    run = settings(tmp_path, loss=LossConfig(auto_weight=True))
    with pytest.raises(ValueError, match="need name='model_guidance' for auto_weight"):
        config.build_experiment(run, dataset)
