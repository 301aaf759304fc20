"""Learning rates at their corners, and what weight decay touches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxguide import models, train
from jaxguide.train.optimizer import decay_mask

FAST_COMPILE = True
PEAK = 2e-3


def rates(name, *steps, **phases):
    schedule = train.learning_rate(name, PEAK, steps=100, **phases)
    return [float(schedule(step)) / PEAK for step in steps]


def test_all_schedules_warm_up_linearly():
    for name in ("constant", "cosine", "wsd"):
        np.testing.assert_allclose(
            rates(name, 0, 5, 10, warmup_steps=10), [0, 0.5, 1], atol=1e-6
        )


def test_they_end_as_they_say():
    np.testing.assert_allclose(
        rates("constant", 99, 10_000, warmup_steps=10), [1, 1], rtol=1e-6
    )
    np.testing.assert_allclose(
        rates("cosine", 55, 100, warmup_steps=10), [0.5, 0], atol=1e-6
    )
    np.testing.assert_allclose(
        rates("wsd", 80, 90, 100, warmup_steps=10, decay_steps=20),
        [1, 0.5, 0],
        atol=1e-6,
    )


def test_moving_the_end_of_wsd_leaves_the_past_alone():
    short, long = (
        train.learning_rate("wsd", PEAK, steps=n, warmup_steps=10, decay_steps=20)
        for n in (100, 300)
    )
    assert [float(short(s)) for s in range(80)] == [float(long(s)) for s in range(80)]


def test_decay_shrinks_kernels_alone():
    config = models.DiTConfig(4, 1, 2, 8, 1, 1, num_classes=2)
    shapes = jax.eval_shape(lambda key: models.init(config, key), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    optimizer = train.adamw(optax.constant_schedule(0.1), weight_decay=0.5)
    with jax.numpy_dtype_promotion("standard"):
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(
            lambda: optimizer.update(zeros, optimizer.init(params), params)
        )()
    mask = decay_mask(params)
    for change, decayed in zip(
        jax.tree.leaves(updates), jax.tree.leaves(mask), strict=True
    ):
        np.testing.assert_allclose(change, -0.05 if decayed else 0, rtol=1e-6)
    assert mask["blocks"]["qkv"] == {"bias": False, "kernel": True}
    assert not mask["pos_embed"] and not mask["label_table"]


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="got name='linear'"):
        rates("linear", 0)
    with pytest.raises(ValueError, match="got peak=0.002, warmup_steps=90"):
        rates("wsd", 0, warmup_steps=90, decay_steps=20)
