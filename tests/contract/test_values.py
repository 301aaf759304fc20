"""Promises 7 and 8: values are traced, structure is static; one time, one space.

Promise 6, neutral is exact, stands in test_neutral.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import evaluate
from tests import transforms as tf
from tests.contract.common import (
    GRID,
    compiled,
    eager,
    few_rows,
    few_steps,
    probes,
    typical_rows,
)

FAST_COMPILE = True


# 6. Neutral is exact: see test_neutral.py.
# 7. Values are traced, structure is static.


@few_rows
def test_other_values_do_not_retrace(row):
    traces = compiled(row.name).traces
    assert traces[0] == traces[1] == traces[2] > 0


@few_rows
def test_vmap_over_values_equals_the_loop(row):
    other = row.neutral or 0.0
    values = row.value * jnp.asarray([0.3, 0.6, 1.0]) + other * jnp.asarray(
        [0.7, 0.4, 0.0]
    )
    grid = few_steps(row)
    out = jax.vmap(lambda v: eager(row.make(v), grid=grid)[0])(values)
    loop = [eager(row.make(float(v)), grid=grid)[0] for v in values]
    np.testing.assert_allclose(out, jnp.stack(loop), rtol=1e-5, atol=1e-5)


def test_vmap_over_a_grid_of_scales_compiles_once():
    main, weak = probes()
    run = jax.jit(
        jax.vmap(lambda s: tf.sample(jg.cfg(s), main, weak, GRID, batched=False))
    )
    wide = run(jnp.linspace(1.0, 4.0, 4))
    traces = main.traces
    run(jnp.linspace(2.0, 5.0, 4))
    assert main.traces == traces <= 2
    single, _, _ = eager(jg.cfg(4.0))
    np.testing.assert_allclose(wide[-1], single, rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("at_neutral", [False, True])
@typical_rows
def test_the_gradient_of_the_number_is_the_finite_difference(row, at_neutral):
    if at_neutral and row.neutral is None:
        pytest.skip("no number of it is neutral")
    value = row.neutral if at_neutral else row.value
    grid = few_steps(row)
    direction = jnp.cos(jnp.arange(16.0)).reshape(4, 2, 2)

    def objective(v):
        return (eager(row.make(v), grid=grid)[0] * direction).sum()

    slope = jax.grad(objective)(jnp.float32(value))
    h = 2e-2  # traced on both sides, so that neutral does not switch the branch off
    up = jax.jvp(objective, (jnp.float32(value + h),), (jnp.float32(0),))[0]
    down = jax.jvp(objective, (jnp.float32(value - h),), (jnp.float32(0),))[0]
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=5e-3, atol=1e-3)
    assert abs(float(slope)) > 1e-4


# 8. One time, one space.


MODEL = tf.mixture()


def through(kind, guidance, path, grid):
    main = tf.oracle_probe(MODEL, kind, path)
    weak = tf.oracle_probe(tf.weaker(), kind, path)
    with jax.disable_jit():
        return tf.sample(guidance, main, weak, grid)


@pytest.mark.exhaustive
@typical_rows
def test_invariant_means_the_same_samples_from_every_kind_of_network(row):
    grid, path = np.array([0.85, 0.6, 0.35]), paths.GVP()
    outs = {k: through(k, row.make(row.value), path, grid) for k in paths.KINDS}
    worst = max(float(np.abs(outs["velocity"] - out).max()) for out in outs.values())
    if row.invariant:
        assert worst < 2e-3, worst
    else:
        assert worst > 1e-2, worst


def test_native_and_score_self_guidance_pull_against_each_other_at_both_ends():
    """The bimodal toy of the notes: +-1 of width 0.15, shift 0.01, linear path."""
    model = jg_mixture_1d()
    network = model.network()
    x = jnp.linspace(-1.5, 1.5, 41)[:, None]
    conds = {"cond": jnp.zeros(41, jnp.int32)}

    def correction(space, t):
        parts = jg.chain(jg.sg(1.0, shift=0.01, space=space))
        node = jax.tree.map(jnp.float32, network.path.node(t))
        step = jg.Step(x, node, conds, jnp.zeros((), bool))
        options = dict(live=(True,))
        pair, _ = evaluate({"main": network}, parts.at(t), ((),), step, **options)
        raw = network.predict(x, jnp.full(41, t, jnp.float32), conds["cond"])
        return np.asarray(pair.noise - pair.denoised - raw, np.float64)[:, 0]

    def cosine(t):
        native, score = correction("native", t), correction("score", t)
        return native @ score / np.sqrt((native @ native) * (score @ score))

    with jax.disable_jit():
        assert cosine(0.95) < -0.99 and cosine(0.9) < -0.99
        assert cosine(0.75) < -0.9
        assert cosine(0.5) > 0.5 and cosine(0.3) > 0.8
        assert cosine(0.05) < -0.8


def jg_mixture_1d():
    from jaxguide.oracle import GaussianMixture

    means, stds = jnp.asarray([[-1.0], [1.0]]), jnp.asarray([0.15, 0.15])
    return GaussianMixture(means, stds, (0, 0))
