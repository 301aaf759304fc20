"""The network as guidance, samplers and losses call it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import models

FAST_COMPILE = True
PLAIN = models.DiTConfig(4, 1, 2, 8, 1, 1, num_classes=3)
X, T, LABEL = jnp.ones((2, 4, 4, 1)), jnp.full(2, 0.5), jnp.array([0, 3])


def params(model):
    zeros = models.init(model, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + 0.1, zeros)


@pytest.mark.exhaustive
def test_a_number_may_be_one_for_all_images():
    model = dataclasses.replace(PLAIN, inputs=("scale",))
    predict = jax.jit(models.Predictor(model))
    one = predict(params(model), X, T, LABEL, scale=2.0)
    each = predict(params(model), X, T, LABEL, scale=np.full(2, 2.0, np.float32))
    numbers = {"scale": jnp.full(2, 2.0)}
    wanted = models.apply(model, params(model), X, T, LABEL, numbers=numbers)
    for result in (one, each):
        np.testing.assert_allclose(result, wanted, rtol=1e-6)


def test_a_missing_number_is_named():
    model = dataclasses.replace(PLAIN, inputs=("scale",))
    with pytest.raises(ValueError, match=r"need numbers for \('scale',\), got"):
        models.Predictor(model)(params(model), X, T, LABEL)


def test_variance_and_record_come_beside_the_prediction():
    model = dataclasses.replace(PLAIN, learn_sigma=True)
    predict, values = models.Predictor(model), params(model)
    whole = models.apply(model, values, X, T, LABEL)
    np.testing.assert_array_equal(predict(values, X, T, LABEL)[1], whole[..., 1:])
    result = predict(values, X, T, LABEL, record_attention=True)
    np.testing.assert_array_equal(result[0], whole[..., :1])
    assert result[2].shape == (2, 1, 4)
    values = params(PLAIN)
    result = models.Predictor(PLAIN)(values, X, T, LABEL, record_attention=True)
    assert result[1] is None and len(result) == 3


def test_equal_architectures_compile_once():
    def trace(predict, *args):
        traced.append(predict)
        return predict(*args)

    traced, values = [], params(PLAIN)
    run = jax.jit(trace, static_argnums=0)
    for _ in range(2):
        run(models.Predictor(dataclasses.replace(PLAIN)), values, X, T, LABEL)
    assert len(traced) == 1
