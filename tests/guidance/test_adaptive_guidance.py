"""Adaptive guidance: CFG until the predictions agree, sample by sample."""

import jax
import numpy as np

import jaxguide as jg
from tests import transforms as tf
from tests.fixed import march, predictions
from tests.guidance.test_oracle import flat

FAST_COMPILE = True
RAW, NULL = predictions()


def close(found, want, atol=2e-5):
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=atol)


def adaptive(threshold, batch=tf.BATCH):
    probe, grid = tf.oracle_probe(tf.mixture()), np.linspace(0.9, 0.2, 8)
    one = jg.adaptive_guidance(3.0, threshold=threshold)
    noise = tf.start()[:batch]
    with jax.disable_jit():
        out = tf.sample(one, probe, probe, grid, noise=noise)
    return flat(out), probe.evaluations(batch)


def euler(scales):
    """CFG with a scale per step, from the formula."""
    model, labels = tf.in_float64(tf.mixture()), tf.labels()
    cond, null = np.asarray(labels["cond"]), np.asarray(labels["null"])
    grid = np.linspace(0.9, 0.2, 8)
    x = 0.9 * flat(tf.start())
    for t, s, scale in zip(grid[:-1], grid[1:], scales, strict=True):
        raw, away = model.velocity(x, t, cond), model.velocity(x, t, null)
        x = x + (s - t) * (away + scale * (raw - away))
    return x


def test_adaptive_guidance_that_never_agrees_is_cfg():
    out, evaluations = adaptive(1.0)
    close(out, euler([3.0] * 7), atol=5e-5)
    assert evaluations == 14


def test_adaptive_guidance_that_always_agrees_guides_one_step():
    out, evaluations = adaptive(-1.0)
    close(out, euler([3.0] + [1.0] * 6), atol=5e-5)
    assert evaluations == 7 + 1


def test_every_sample_stops_for_itself():
    out, evaluations = adaptive(0.9)
    assert 8 < evaluations <= 14
    alone, _ = adaptive(0.9, 1)
    np.testing.assert_allclose(alone, out[:1], atol=1e-6)


def test_a_sample_stops_for_good_in_the_step_after_it_agrees():
    """The first of three agrees in the second step, and not before or after."""
    agreeing = NULL.copy()
    agreeing[0] = 2 * RAW[0]
    nulls = [NULL, agreeing, NULL, NULL]
    one = jg.adaptive_guidance(3.0, threshold=0.999)
    out = march(one, [RAW] * 4, nulls, (0.8, 0.6, 0.4, 0.2))
    for found, null in zip(out, nulls, strict=True):
        close(found[1:], null[1:] + 3 * (RAW - null)[1:])
    for i in range(2):
        close(out[i, 0], nulls[i][0] + 3 * (RAW - nulls[i])[0])
        np.testing.assert_array_equal(out[2 + i, 0], RAW[0])
