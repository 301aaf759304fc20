"""Runs: they learn, resume bit for bit, stop when asked, and refuse broken losses."""

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxguide import data, train

FAST_COMPILE = True


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def least_squares(params, inputs):
    """A noisy linear model of the label: it uses batch, draws and shuffle."""
    x0, label = inputs.batch
    pixels = x0.reshape(len(x0), -1)
    noise = 0.1 * inputs.draws.normal()
    return jnp.square(pixels @ params["kernel"] + params["bias"] - label + noise)


def experiment(**changes):
    def init_params(key):
        kernel = 0.1 * jax.random.normal(key, (64,))
        return {"kernel": kernel, "bias": jnp.zeros(())}

    fields = dict(
        dataset=data.digits(),
        init_params=init_params,
        loss=least_squares,
        optimizer=train.adamw(optax.constant_schedule(0.01), clip=1.0),
        batch_size=16,
        flip=True,
        ema=(0.9,),
        meta={"name": "toy", "batch_size": 16},
    )
    return train.Experiment(**(fields | changes))


def loop(folder, steps, **changes):
    fields = dict(log_every=5, save_every=4, snapshot_every=100)
    return train.LoopConfig(folder=folder, steps=steps, **(fields | changes))


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path):
    whole = train.run(experiment(), loop(tmp_path / "whole", 11))
    for steps in (3, 7, 11):
        resumed = train.run(experiment(), loop(tmp_path / "parts", steps))
    assert int(whole.step) == int(resumed.step) == 11
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_another_seed_is_another_run(tmp_path):
    first = train.run(experiment(), loop(tmp_path / "a", 3))
    second = train.run(experiment(seed=1), loop(tmp_path / "b", 3))
    assert not np.array_equal(first.params["kernel"], second.params["kernel"])


def test_the_loss_falls_and_is_written_down(tmp_path):
    train.run(experiment(), loop(tmp_path, 200, log_every=50, save_every=1000))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    numbers = [json.loads(line) for line in lines]
    assert [n["step"] for n in numbers] == [50, 100, 150, 200]
    assert numbers[-1]["loss"] < 0.5 * numbers[0]["loss"]
    assert numbers[-1]["images_per_second"] > 0 and numbers[-1]["seconds_left"] == 0


def test_the_average_lags_behind_the_parameters(tmp_path):
    state = train.run(experiment(), loop(tmp_path, 30))
    assert not np.array_equal(state.params["kernel"], state.ema_params["kernel"])
    distance = jnp.abs(state.params["kernel"] - state.ema_params["kernel"]).max()
    assert float(distance) < 0.2, "after 30 steps of at most 0.01"


@pytest.mark.parametrize("warmup", [True, False])
def test_the_first_average_is_that_of_its_decay(tmp_path, warmup):
    """One update goes 1 - 0.99 of the way, and with warm-up 1 - 1/10."""
    one = experiment(ema_warmup=warmup, ema=(0.99,))
    first = one.init_params(jax.random.key(one.seed))["kernel"]
    state = train.run(one, loop(tmp_path, 1))
    moved = (state.ema_params["kernel"] - first) / (state.params["kernel"] - first)
    np.testing.assert_allclose(moved, 0.9 if warmup else 0.01, rtol=0.02)


def test_snapshots_come_on_time_and_at_the_end(tmp_path):
    seen = []
    train.run(
        experiment(),
        loop(tmp_path, 10, snapshot_every=4),
        lambda step, state: seen.append((step, int(state.step))),
    )
    assert seen == [(4, 4), (8, 8), (10, 10)]


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def name(request):
    """A signal whose usual handler does nothing, so that a late one is harmless."""
    usual = signal.signal(request.param, lambda *_: None)
    yield request.param
    signal.signal(request.param, usual)


def test_a_signal_saves_and_ends_the_run(tmp_path, name):
    def interrupt(step, state):
        if step == 5:
            signal.raise_signal(name)

    before = signal.getsignal(name)
    state = train.run(experiment(), loop(tmp_path, 100, snapshot_every=5), interrupt)
    assert int(state.step) == 6
    assert signal.getsignal(name) is before
    resumed = train.run(experiment(), loop(tmp_path, 11))
    whole = train.run(experiment(), loop(tmp_path / "whole", 11))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(params, inputs):
        return least_squares(params, inputs) / 0

    with pytest.raises(
        FloatingPointError, match="need a finite loss, got loss=(inf|nan)"
    ):
        train.run(experiment(loss=broken), loop(tmp_path, 20, save_every=100))


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    train.run(experiment(), loop(tmp_path, 2))
    other = experiment(meta={"name": "toy", "batch_size": 32})
    with pytest.raises(ValueError, match="need the batch_size of the checkpoint"):
        train.run(other, loop(tmp_path, 4))


def test_a_loop_needs_positive_numbers(tmp_path):
    with pytest.raises(ValueError, match="need log_every >= 1, got log_every=0"):
        dataclasses.replace(loop(tmp_path, 3), log_every=0)
