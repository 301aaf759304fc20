"""Networks that take the scale of their guidance as an input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import losses, models
from jaxguide.models import load_weights
from jaxguide.sample import columns, jobs
from jaxguide.sample.config import SampleConfig
from tests import tiny_checkpoint

FAST_COMPILE = True
AWARE = dataclasses.replace(tiny_checkpoint.MODEL, inputs=("scale",))


def sample(file, scale):
    config = SampleConfig(
        checkpoint=file, learnt_scale=scale, num_steps=2, labels="0", per_class=2
    )
    job = jobs.build_job(config)
    assert job.costs()["none"].nfe == 2, "guided without a second evaluation"
    return dict(columns.run(job))["none"].images


def test_the_scale_reaches_the_network_and_only_such_a_network(tmp_path):
    aware = tiny_checkpoint.write(tmp_path / "aware.safetensors", model=AWARE)
    assert load_weights(aware).model == AWARE
    assert np.abs(sample(aware, 1.0) - sample(aware, 3.0)).max() > 1e-3
    plain = tiny_checkpoint.write(tmp_path / "plain.safetensors")
    with pytest.raises(
        jg.InputError, match="need learnt_scale=1 .* got learnt_scale=3"
    ):
        sample(plain, 3.0)


def test_every_image_of_a_batch_may_have_its_own_scale(key, tmp_path):
    weights = load_weights(
        tiny_checkpoint.write(tmp_path / "a.safetensors", model=AWARE)
    )
    x = jax.random.normal(key, (2, 8, 8, 1))
    t, label = jnp.full(2, 0.5), jnp.zeros(2, jnp.int32)

    @jax.jit
    def predict(scales):
        numbers = {"scale": scales}
        return models.apply(AWARE, weights.params, x, t, label, numbers=numbers)

    both, first, second = (
        predict(jnp.array(scales)) for scales in ((1.0, 2.5), (1.0, 1.0), (2.5, 2.5))
    )
    np.testing.assert_allclose(both[0], first[0], atol=1e-5)
    np.testing.assert_allclose(both[1], second[1], atol=1e-5)
    assert np.abs(first[1] - second[1]).max() > 1e-3


def test_wrong_numbers_are_named(key):
    params = jax.eval_shape(lambda: models.init(AWARE, key))
    x, t, label = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match=r"need numbers for \('scale',\), got numbers"):
        models.apply(AWARE, params, x, t, label)
    with pytest.raises(ValueError, match="need inputs of .*, got inputs="):
        dataclasses.replace(AWARE, inputs=("sclae",))
    with pytest.raises(ValueError, match="need a finite scale > 0, got scale=0"):
        losses.inputs_at(0.0, ("scale",))


def test_an_input_starts_near_zero_and_is_all_that_is_added(key):
    made = jax.jit(models.init, static_argnums=0)(AWARE, key)
    assert float(jnp.abs(made["scale_out"]["kernel"]).max()) < 2e-3
    plain = jax.eval_shape(lambda: models.init(tiny_checkpoint.MODEL, key))
    assert set(made) - set(plain) == {"scale_in", "scale_out"}
