"""Promises 3 to 5: what is dead or dropped costs nothing; the cost is a promise."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import DropBlocks, View, evaluate
from tests import transforms as tf
from tests.contract.common import (
    GRID,
    SAMPLERS,
    SHORT,
    TWO_STAGES,
    compiled,
    compiled_grid,
    eager,
    every_row,
    few_rows,
    masks,
    probes,
    promised,
    rows_and_samplers,
    some_neutral_rows,
)

FAST_COMPILE = True


# 3. A dead branch costs nothing.


@pytest.mark.parametrize("steps", [10, 20, 25, 30, 40, 50, 100, 250])
def test_a_window_guides_exactly_its_steps(steps):
    main, weak = probes()
    low, high = Fraction(1, 10), Fraction(9, 10)
    inside = sum(low <= Fraction(steps - i, steps) < high for i in range(steps))
    guidance = jg.cfg(2.0, t_lo=0.1, t_hi=0.9)
    tf.sample(guidance, main, weak, jg.uniform(steps))
    assert main.evaluations() == steps + inside
    guided = sorted(float(s.t[0]) for s in main.calls if int(s.label[0]) == 3)
    first, last = min(guided), max(guided)
    assert first >= 0.1 - 1e-6 and last < 0.9 - 1e-6


@functools.cache
def base_of(make):
    """What most rows change: sampled and counted once."""
    out, main, _ = eager(make(), grid=SHORT)
    return out, main.evaluations()


@some_neutral_rows
def test_a_neutral_transform_costs_and_changes_nothing(row):
    out, main, weak = eager(row.make(row.neutral), grid=SHORT)
    base, evaluations = base_of(row.base)
    assert main.evaluations() == evaluations
    assert weak.evaluations() == 0
    np.testing.assert_array_equal(*(np.asarray(a).view(np.uint32) for a in (out, base)))


def test_a_schedule_that_is_zero_in_a_step_costs_nothing_there():
    ramp = jg.chain(jg.cfg(lambda t: 1.0 if t > 0.5 else 2.0))
    _, probe, _ = eager(ramp)
    assert probe.evaluations() == 5 + 2


def test_the_memory_is_kept_up_outside_the_window():
    parts = jg.chain(jg.sg_prev(3.0, t_hi=0.5))
    main, _ = probes()
    x = tf.start()
    node = jax.tree.map(jnp.float32, main.network().path.node(0.8))
    step = jg.Step(x, node, tf.labels(), jnp.zeros((), bool))
    _, (state,) = evaluate(
        {"main": main.network()}, parts.at(0.8), parts.init(x), step, live=(False,)
    )
    raw = tf.toy(main.weights, x, jnp.full(tf.BATCH, 0.8), tf.labels()["cond"])
    np.testing.assert_array_equal(state.previous, raw)
    assert bool(state.ready)


def test_a_self_guidance_shift_that_is_clipped_away_costs_nothing():
    _, probe, _ = eager(jg.sg(2.0, shift=0.05), grid=np.array([1.0, 0.5]))
    assert probe.evaluations() == 1


# 4. Dropped blocks are really skipped.


WIDTH, BLOCKS = 16, 8


def stack(weights, x, t, label, keep_blocks=None):
    """A residual network whose kept blocks are gathered by index."""
    keep = jnp.arange(BLOCKS) if keep_blocks is None else keep_blocks
    for i in range(len(keep)):
        x = x + jnp.tanh(x @ weights[keep[i]])
    return x


def stack_network():
    weights = jax.random.normal(jax.random.key(0), (BLOCKS, WIDTH, WIDTH)) / 8
    predict = jax.tree_util.Partial(stack, weights)
    return jg.Network(predict, depth=BLOCKS, flops=BLOCKS, block_flops=1.0)


def flops_of(guidance):
    network, x = stack_network(), jnp.ones((64, WIDTH))
    parts = jg.chain(guidance)

    def step(network, x, key):
        node = jax.tree.map(jnp.float32, network.path.node(0.5))
        at = jg.Step(x, node, {"cond": jnp.zeros(64)}, jnp.zeros((), bool))
        live = (True,) * len(parts.parts)
        options = dict(live=live, key=key)
        return evaluate({"main": network}, parts.at(0.5), parts.init(x), at, **options)[
            0
        ]

    lowered = jax.jit(step).lower(network, x, jax.random.key(0))
    return lowered.compile().cost_analysis()["flops"]


def test_the_compiled_program_leaves_the_dropped_blocks_out():
    raw = flops_of(jg.chain())
    few = flops_of(jg.s2(0.5, drop=2 / 8)) - raw
    many = flops_of(jg.s2(0.5, drop=6 / 8)) - raw
    np.testing.assert_allclose(few / raw, 6 / 8, rtol=0.06)
    np.testing.assert_allclose(many / raw, 2 / 8, rtol=0.2)
    share = DropBlocks(6 / 8).share(stack_network())
    assert share == 2 / 8


def test_one_program_serves_every_mask():
    main, weak = probes()
    traces = []
    for seed in range(4):
        tf.sample(jg.s2(0.7), main, weak, np.linspace(0.8, 0.2, 9), seed=seed)
        traces.append(main.traces)
    assert len(set(traces)) == 1
    jax.effects_barrier()
    assert len({tuple(keep) for keep in masks(main)}) > 2


@pytest.mark.parametrize("exclude", [(0,), (0, 3), (-1,), ()])
def test_kept_blocks_are_sorted_static_and_never_lack_an_excluded_one(exclude):
    network = tf.toy_probe().network()
    tap = DropBlocks(0.34, exclude)
    draw = jax.jit(
        jax.vmap(lambda key: tap.taps(View(network, None, key))["keep_blocks"])
    )
    keeps = np.asarray(draw(jax.random.split(jax.random.key(0), 3000)))
    assert keeps.dtype == np.int32 and keeps.shape == (3000, tf.DEPTH - 2)
    assert np.all(np.diff(keeps, axis=1) > 0)
    runs = np.stack([(keeps == i).any(axis=1) for i in range(tf.DEPTH)]).mean(axis=1)
    safe = [i % tf.DEPTH for i in exclude]
    assert np.all(runs[safe] == 1.0)
    others = np.delete(runs, safe)
    # 3000 draws: standard error below 0.01, five of them.
    np.testing.assert_allclose(others, 1 - 2 / len(others), atol=0.05)


# 5. Cost is a promise.


@pytest.mark.parametrize(("row", "name"), rows_and_samplers())
def test_promised_evaluations_are_the_counted_ones(row, name):
    guidance = row.make(row.value)
    _, main, weak = eager(guidance, grid=SHORT, sampler=SAMPLERS[name])
    promise = jg.cost(
        main.network(), guidance, SHORT, SAMPLERS[name],
        networks={"weak": weak.network()},
    )  # fmt: skip
    assert main.evaluations() + weak.evaluations() == promise.nfe
    assert promise.nfe == promised(row, SHORT, name)
    assert promise.unguided_nfe == (5 if name in TWO_STAGES else 3)
    assert promise.steps == 3
    skipped = sum(tf.DEPTH - len(keep) for keep in masks(main))
    spent = main.evaluations() * tf.FLOPS - skipped * tf.BLOCK_FLOPS
    spent += weak.evaluations() * weak.facts["flops"]
    if row.gradients:  # a gradient is two more forward passes' worth
        spent += 2 * (promise.nfe - promise.unguided_nfe) * tf.FLOPS
    np.testing.assert_allclose(promise.flops, spent, rtol=1e-12)


@few_rows
def test_the_compiled_program_evaluates_what_was_promised(row):
    run = compiled(row.name)
    assert run.evaluations == run.cost == promised(row, compiled_grid(row))


@pytest.mark.exhaustive  # by default on few steps; every window as the loop counts it
@every_row
def test_the_compiled_program_evaluates_it_in_every_window(row):
    run = compiled(row.name, tuple(GRID))
    assert run.evaluations == run.cost == promised(row)
    eager_out, _, _ = eager(row.make(row.value))
    np.testing.assert_allclose(run.first, eager_out, rtol=2e-5, atol=2e-5)
    assert run.traces[0] == run.traces[1] == run.traces[2]


def test_flops_are_unknown_when_a_network_does_not_know_its_own():
    network = jg.Network(lambda x, t, c: x)
    assert jg.cost(network, jg.cfg(2.0), GRID, jg.euler()).flops is None


def test_cost_reads_as_a_sentence():
    main, _ = probes()
    text = str(jg.cost(main.network(), jg.cfg(2.0), GRID, jg.euler()))
    assert text == "5 steps, 10 NFE per image, 1e-05 GFLOP"
