"""Promise 1: transforms are pure functions, over the table of every transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import evaluate
from tests import transforms as tf
from tests.contract.common import (
    compiled,
    compiled_grid,
    eager,
    every_row,
    few_rows,
    few_steps,
    masks,
    probes,
    rest,
)

FAST_COMPILE = True


# 1. Pure.


@few_rows
def test_same_inputs_give_the_same_samples(row):
    run = compiled(row.name)
    np.testing.assert_array_equal(run.first, run.again)
    assert np.all(np.isfinite(run.first))


@functools.cache
def base_of(make, grid):
    """What neutral rows must equal; most of them share one."""
    return eager(make(), grid=np.array(grid))[0]


@few_rows
def test_the_transform_acts_and_its_number_matters(row):
    run = compiled(row.name)
    base = base_of(row.base, tuple(compiled_grid(row)))
    assert np.abs(run.first - base).max() > 1e-4
    assert np.abs(run.first - run.other).max() > 1e-4


@few_rows
def test_jit_equals_eager(row):
    out, _, _ = eager(row.make(row.value), grid=compiled_grid(row))
    np.testing.assert_allclose(compiled(row.name).first, out, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *rest(jnp.float32)])
@every_row
def test_state_keeps_structure_shape_and_dtype(row, dtype):
    main, weak = probes()
    x = tf.start(dtype=dtype)
    parts = jg.chain(row.make(row.value))
    before = jax.eval_shape(parts.init, x)
    for part, state in zip(parts.parts, before, strict=True):
        assert state == () or hasattr(state, "_fields"), type(part)

    def step(x):
        path = main.network().path
        node, end = (jax.tree.map(jnp.float32, path.node(t)) for t in (0.5, 0.4))
        at = jg.Step(x, node, tf.labels(), jnp.zeros((), bool), next_node=end)
        networks = {"main": main.network(), "weak": weak.network()}
        options = dict(live=parts.live(0.5), key=jax.random.key(0))
        return evaluate(networks, parts.at(0.5), parts.init(x), at, **options)

    pair, after = jax.eval_shape(step, x)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before) == jax.tree.leaves(after)
    assert (pair.denoised.dtype, pair.noise.dtype) == (dtype, dtype)
    copies = sum(leaf.shape == x.shape for leaf in jax.tree.leaves(before))
    assert copies == int(row.memory)


@few_rows
def test_only_the_stochastic_ones_depend_on_the_key(row):
    one, _, _ = eager(row.make(row.value), seed=1, grid=few_steps(row))
    two, _, _ = eager(row.make(row.value), seed=2, grid=few_steps(row))
    assert row.stochastic == bool(np.abs(one - two).max() > 0)


@pytest.mark.parametrize("after", [jg.cfg(2.0), jg.sg_prev(0.5), jg.s2(0.4, drop=0.3)])
def test_appending_a_transform_leaves_earlier_draws_alone(after):
    first = jg.s2(0.7, drop=0.3)
    grid = np.linspace(0.89, 0.2, 9)
    _, alone, _ = eager(first, grid=grid)
    _, both, _ = eager(jg.chain(first, after), grid=grid)
    per_step = len(masks(both)) // 8
    assert masks(both)[::per_step] == masks(alone)


def test_two_transforms_draw_independently():
    grid = np.linspace(0.89, 0.2, 9)
    _, both, _ = eager(jg.chain(jg.s2(0.7), jg.s2(0.7)), grid=grid)
    assert masks(both)[::2] != masks(both)[1::2]


def test_draws_are_fresh_at_every_step():
    _, probe, _ = eager(jg.s2(0.7), grid=np.linspace(0.89, 0.2, 9))
    assert len({tuple(keep) for keep in masks(probe)}) > 1
