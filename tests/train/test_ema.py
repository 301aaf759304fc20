"""The running average against its closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.train import ema_decay, ema_update


def test_a_constant_decay_weighs_the_past_geometrically():
    decay, values = 0.9, np.random.default_rng(0).standard_normal(20)
    average = {"a": jnp.zeros((2,))}
    for value in values:
        average = ema_update(average, {"a": jnp.full((2,), value)}, jnp.float32(decay))
    weights = (1 - decay) * decay ** np.arange(20)[::-1]
    np.testing.assert_allclose(average["a"], weights @ values, rtol=1e-5)


def test_warm_up_rises_to_the_final_decay():
    decays = [float(ema_decay(jnp.int32(s), decay=0.99)) for s in (0, 10, 889, 10**6)]
    np.testing.assert_allclose(decays, [0.1, 11 / 20, 890 / 899, 0.99], rtol=1e-6)
    assert float(ema_decay(jnp.int32(0), decay=0.99, warmup=False)) == np.float32(0.99)


def test_decay_zero_copies_the_newest_value():
    new = {"a": jnp.arange(3.0)}
    decay = ema_decay(jnp.int32(5), decay=0.0)
    updated = ema_update({"a": jnp.ones(3)}, new, decay)
    np.testing.assert_array_equal(updated["a"], new["a"])


def test_a_float32_average_of_bfloat16_weights_stays_float32():
    average = ema_update(
        {"a": jnp.ones(2)}, {"a": jnp.zeros(2, jnp.bfloat16)}, jnp.float32(0.999)
    )
    assert average["a"].dtype == jnp.float32
    np.testing.assert_allclose(average["a"], 0.999, rtol=1e-6)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match="need 0 <= decay < 1, got decay=1"):
        ema_decay(jnp.int32(0), decay=1)
