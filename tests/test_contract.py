"""The promises of the core, each over the table of every transform."""

import functools
import inspect
import subprocess
import sys
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import DropBlocks, evaluate, plan
from tests import transforms as tf

FAST_COMPILE = True
GRID = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
SHORT = np.array([1.0, 0.6, 0.05, 0.0])
SAMPLERS = {
    "euler": jg.euler(),
    "ddim": jg.ddim(),
    "ddpm": jg.ddpm(),
    "euler_maruyama": jg.euler_maruyama(),
    "dpmpp_2m": jg.dpmpp_2m(),
    "heun": jg.heun(),
}

every_row = pytest.mark.parametrize("row", tf.ALL_TRANSFORMS, ids=lambda row: row.name)
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def probes():
    main, weak = tf.toy_probe(1.3), tf.toy_probe(0.9)
    weak.facts["flops"] = 300.0
    return main, weak


def eager(guidance, **options):
    """Samples without compiling, and the two probes that watched."""
    main, weak = probes()
    grid = options.pop("grid", GRID)
    with jax.disable_jit():
        out = tf.sample(guidance, main, weak, grid, **options)
    return out, main, weak


def promised(row, grid=GRID, sampler="euler"):
    """NFE per image by the row's own account, stages counted by hand."""
    total = 0
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        stages = 2 if sampler == "heun" and s > 0 else 1
        total += stages * (1 + int(row.nfe(float(t))))
    return total


class Compiled(NamedTuple):
    first: np.ndarray
    again: np.ndarray
    other: np.ndarray  # with another value
    traces: list[int]  # after each of the three runs
    evaluations: int  # of one run of the compiled program
    cost: int


@functools.cache
def compiled(name):
    """One row through `generate` three times, as a user would call it."""
    row = tf.BY_NAME[name]
    main, weak = probes()
    outs, traces = [], []
    for value in (row.value, row.value, 0.8 * row.value + 0.01):
        outs.append(np.asarray(tf.sample(row.make(value), main, weak, GRID)))
        traces.append(main.traces + weak.traces)
    cost = jg.cost(
        main.network(), row.make(row.value), GRID, jg.euler(),
        networks={"weak": weak.network()},
    )  # fmt: skip
    counted = main.evaluations() + weak.evaluations()
    return Compiled(*outs, traces, counted / 3, cost.nfe)


# 1. Pure.


@every_row
def test_same_inputs_give_the_same_samples(row):
    run = compiled(row.name)
    np.testing.assert_array_equal(run.first, run.again)
    assert np.all(np.isfinite(run.first))


@every_row
def test_the_transform_acts_and_its_number_matters(row):
    run = compiled(row.name)
    base, _, _ = eager(row.base())
    assert np.abs(run.first - base).max() > 1e-4
    assert np.abs(run.first - run.other).max() > 1e-4


@every_row
def test_jit_equals_eager(row):
    out, _, _ = eager(row.make(row.value))
    np.testing.assert_allclose(compiled(row.name).first, out, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_row
def test_state_keeps_structure_shape_and_dtype(row, dtype):
    main, weak = probes()
    x = tf.start(dtype=dtype)
    parts = jg.chain(row.make(row.value))
    before = jax.eval_shape(parts.init, x)
    for part, state in zip(parts.parts, before, strict=True):
        assert state == () or hasattr(state, "_fields"), type(part)

    def step(x):
        node = jax.tree.map(jnp.float32, main.network().path.node(0.5))
        at = jg.Step(x, node, tf.labels(), jnp.zeros((), bool))
        networks = {"main": main.network(), "weak": weak.network()}
        live = (True,) * len(parts.parts)
        return evaluate(
            networks, parts.at(0.5), parts.init(x), at, live=live, key=jax.random.key(0)
        )

    pair, after = jax.eval_shape(step, x)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before) == jax.tree.leaves(after)
    assert (pair.denoised.dtype, pair.noise.dtype) == (dtype, dtype)
    copies = sum(leaf.shape == x.shape for leaf in jax.tree.leaves(before))
    assert copies == int(row.memory)


@every_row
def test_only_the_stochastic_ones_depend_on_the_key(row):
    one, _, _ = eager(row.make(row.value), seed=1, grid=SHORT)
    two, _, _ = eager(row.make(row.value), seed=2, grid=SHORT)
    assert row.stochastic == bool(np.abs(one - two).max() > 0)


def masks(probe):
    """Every `keep_blocks` that the network was given, in order of evaluation."""
    return [seen.keep.tolist() for seen in probe.calls if seen.keep is not None]


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


# 2. Branches are declared, then evaluated once.


@every_row
def test_equal_branches_are_evaluated_once(row):
    if row.stochastic:
        pytest.skip("its draws are its own")
    _, once, weak_once = eager(row.make(row.value))
    twin = jg.chain(row.make(row.value), row.make(0.5 * row.value + 0.3))
    _, twice, weak_twice = eager(twin)
    assert once.evaluations() == twice.evaluations()
    assert weak_once.evaluations() == weak_twice.evaluations()


def test_two_cfgs_cost_one_null_call():
    _, probe, _ = eager(jg.chain(jg.cfg(2.0), jg.cfg(3.0)))
    assert probe.evaluations() == 2 * (len(GRID) - 1)
    null = sum(int(seen.label[0]) == 3 for seen in probe.calls)
    assert null == len(GRID) - 1


@pytest.mark.parametrize("seed", range(2))
@every_row
def test_batched_equals_sequential(row, seed):
    noise = jax.random.normal(jax.random.key(seed), (tf.BATCH, *tf.SHAPE))
    options = dict(noise=noise, seed=seed, grid=SHORT)
    one, calls, weak = eager(row.make(row.value), batched=False, **options)
    two, merged, weak_merged = eager(row.make(row.value), batched=True, **options)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert calls.evaluations() == merged.evaluations()
    assert weak.evaluations() == weak_merged.evaluations()
    assert len(merged.calls) <= len(calls.calls)


def test_batched_runs_input_branches_in_one_forward_and_dropped_blocks_alone():
    guidance = jg.chain(jg.cfg(2.0), jg.sg(1.0), jg.s2(0.5))
    _, probe, _ = eager(guidance, batched=True, grid=np.array([0.6, 0.5]))
    shapes = sorted((seen.rows, seen.keep is not None) for seen in probe.calls)
    assert shapes == [(tf.BATCH, True), (3 * tf.BATCH, False)]


class Probing:
    """The parts of `Transform` that the transforms of this file share."""

    def init(self, x):
        return ()

    def live(self, t, index=0):
        return True


def _half_way(step, outputs):
    """An input made from a first-round prediction."""
    return step.x - 0.25 * outputs[jg.Branch(cond="null")]


class SecondRound(Probing):
    """guided + raw - (the network at an input made from its own prediction)."""

    null = jg.Branch(cond="null")
    again = jg.Branch(rewrite=_half_way)

    def branches(self, network):
        return (self.null, self.again)

    def apply(self, guided, state, outputs, step, *, live):
        moved = guided.prediction + outputs[jg.Branch()] - outputs[self.again]
        return guided._replace(prediction=moved), state


class Energy(Probing):
    """guided + gradient of the prediction's energy with respect to the state."""

    branch = jg.Branch(differentiable=True)

    def branches(self, network):
        return (self.branch,)

    def apply(self, guided, state, outputs, step, *, live):
        function = outputs.function(self.branch)
        push = jax.grad(lambda x: (function(x) ** 2).sum())(step.x)
        return guided._replace(prediction=guided.prediction + push), state


def register(cls):
    return jax.tree_util.register_static(cls)


register(SecondRound)
register(Energy)


@pytest.mark.parametrize("batched", [False, True])
def test_a_second_round_branch_sees_the_first_round(batched):
    grid = np.array([0.6, 0.5])
    out, probe, weak = eager(SecondRound(), grid=grid, batched=batched)
    x = tf.start() * np.float32(0.6)
    at = lambda x, label: tf.toy(probe.weights, x, jnp.full(tf.BATCH, 0.6), label)  # noqa: E731
    label = tf.labels()
    raw = at(x, label["cond"])
    again = at(x - 0.25 * at(x, label["null"]), label["cond"])
    np.testing.assert_allclose(out, x - 0.1 * (2 * raw - again), rtol=1e-5, atol=1e-6)
    assert probe.evaluations() == 3
    promise = jg.cost(probe.network(), SecondRound(), grid, jg.euler())
    assert promise.nfe == 3


def test_an_energy_differentiates_through_the_network_and_is_counted():
    grid = np.array([0.6, 0.5])
    out, probe, _ = eager(Energy(), grid=grid)
    x = tf.start() * np.float32(0.6)
    label = tf.labels()["cond"]
    net = lambda x: tf.toy(probe.weights, x, jnp.full(tf.BATCH, 0.6), label)  # noqa: E731
    h = 1e-3
    push = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = jnp.zeros_like(x).at[index].set(h)
        push[index] = ((net(x + step) ** 2).sum() - (net(x - step) ** 2).sum()) / (
            2 * h
        )
    np.testing.assert_allclose(out, x - 0.1 * (net(x) + push), rtol=1e-3, atol=1e-3)
    assert probe.evaluations() == 2
    promise = jg.cost(probe.network(), Energy(), grid, jg.euler())
    assert (promise.nfe, promise.flops) == (2, 4 * tf.FLOPS)


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


@every_row
def test_a_neutral_transform_costs_nothing(row):
    _, main, weak = eager(row.make(row.neutral), grid=SHORT)
    _, base, _ = eager(row.base(), grid=SHORT)
    assert main.evaluations() == base.evaluations()
    assert weak.evaluations() == 0


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
        jax.vmap(lambda key: tap.arguments(network, key, None)["keep_blocks"])
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


@every_sampler
@every_row
def test_promised_evaluations_are_the_counted_ones(row, name):
    guidance = row.make(row.value)
    _, main, weak = eager(guidance, grid=SHORT, sampler=SAMPLERS[name])
    promise = jg.cost(
        main.network(), guidance, SHORT, SAMPLERS[name],
        networks={"weak": weak.network()},
    )  # fmt: skip
    assert main.evaluations() + weak.evaluations() == promise.nfe
    assert promise.nfe == promised(row, SHORT, name)
    assert promise.unguided_nfe == (5 if name == "heun" else 3)
    assert promise.steps == 3
    skipped = sum(tf.DEPTH - len(keep) for keep in masks(main))
    spent = main.evaluations() * tf.FLOPS - skipped * tf.BLOCK_FLOPS
    spent += weak.evaluations() * weak.facts["flops"]
    np.testing.assert_allclose(promise.flops, spent, rtol=1e-12)


@every_row
def test_the_compiled_program_evaluates_what_was_promised(row):
    run = compiled(row.name)
    assert run.evaluations == run.cost == promised(row)


def test_flops_are_unknown_when_a_network_does_not_know_its_own():
    network = jg.Network(lambda x, t, c: x)
    assert jg.cost(network, jg.cfg(2.0), GRID, jg.euler()).flops is None


def test_cost_reads_as_a_sentence():
    main, _ = probes()
    text = str(jg.cost(main.network(), jg.cfg(2.0), GRID, jg.euler()))
    assert text == "5 steps, 10 NFE per image, 1e-05 GFLOP"


# 6. Neutral is exact: see test_neutral.py.
# 7. Values are traced, structure is static.


@every_row
def test_other_values_do_not_retrace(row):
    traces = compiled(row.name).traces
    assert traces[0] == traces[1] == traces[2] > 0


@every_row
def test_vmap_over_values_equals_the_loop(row):
    values = row.value * jnp.asarray([0.3, 0.6, 1.0]) + row.neutral * jnp.asarray(
        [0.7, 0.4, 0.0]
    )
    grid = np.array([0.65, 0.5, 0.3])
    out = jax.vmap(lambda v: eager(row.make(v), grid=grid)[0])(values)
    loop = [eager(row.make(float(v)), grid=grid)[0] for v in values]
    np.testing.assert_allclose(out, jnp.stack(loop), rtol=1e-5, atol=1e-5)


def test_vmap_over_a_grid_of_scales_compiles_once():
    main, weak = probes()
    run = jax.jit(jax.vmap(lambda s: tf.sample(jg.cfg(s), main, weak, GRID)))
    wide = run(jnp.linspace(1.0, 4.0, 4))
    traces = main.traces
    run(jnp.linspace(2.0, 5.0, 4))
    assert main.traces == traces <= 2
    single, _, _ = eager(jg.cfg(4.0))
    np.testing.assert_allclose(wide[-1], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_neutral", [False, True])
@every_row
def test_the_gradient_of_the_number_is_the_finite_difference(row, at_neutral):
    value = row.neutral if at_neutral else row.value
    grid = np.array([0.65, 0.5, 0.3])
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


@every_row
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


# 9. Guidance and sampler may couple.


class CFGpp(Probing):
    """CFG++: denoise with the guided prediction, renoise with the unconditional."""

    null = jg.Branch(cond="null")

    def __init__(self, strength):
        self.strength = strength

    def branches(self, network):
        return (self.null,)

    def apply(self, guided, state, outputs, step, *, live):
        null = outputs[self.null]
        prediction = null + self.strength * (outputs[jg.Branch()] - null)
        _, noise = paths.to_pair(outputs.network.kind, null, step.x, step.node)
        return guided._replace(prediction=prediction, noise=noise), state


register(CFGpp)


@pytest.mark.parametrize("kind", ["velocity", "noise", "denoised"])
@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_cfg_plus_plus_is_cfg_with_the_effective_scale_of_a_first_order_step(
    name, kind
):
    strength, grid = 0.6, np.array([0.9, 0.7, 0.45, 0.2])

    def effective(t):
        s = grid[1:][np.argmin(np.abs(grid[:-1] - t))]
        return strength * t * (1 - s) / (t - s)

    path = paths.Linear()
    main = tf.oracle_probe(MODEL, kind, path)
    with jax.disable_jit():
        coupled = tf.sample(CFGpp(strength), main, main, grid, SAMPLERS[name])
        plain = tf.sample(jg.cfg(effective), main, main, grid, SAMPLERS[name])
    np.testing.assert_allclose(coupled, plain, rtol=1e-4, atol=1e-4)


@every_row
def test_a_linear_method_leaves_the_pair_consistent(row):
    main, weak = probes()
    x, t = tf.start(), 0.6
    node = jax.tree.map(jnp.float32, paths.GVP().node(t))
    parts = jg.chain(row.make(row.value))
    networks = {"main": main.network(), "weak": weak.network()}
    live = (True,) * len(parts.parts)
    options = dict(live=live, key=jax.random.key(0))
    step = jg.Step(x, node, tf.labels(), jnp.zeros((), bool))
    with jax.disable_jit():
        pair, _ = evaluate(networks, parts.at(t), parts.init(x), step, **options)
    rebuilt = node.alpha * pair.denoised + node.sigma * pair.noise
    np.testing.assert_allclose(rebuilt, x, atol=1e-5)


# 10. State commits once per step.


class Commits(Probing):
    """Counts its commits in its state and shows the count in the prediction."""

    def init(self, x):
        return CommitsState(jnp.zeros((), jnp.int32))

    def branches(self, network):
        return ()

    def apply(self, guided, state, outputs, step, *, live):
        shown = guided._replace(prediction=jnp.full_like(step.x, 1.0) * state.count)
        return shown, CommitsState(state.count + 1)


class CommitsState(NamedTuple):
    count: jax.Array


register(Commits)


def test_a_two_stage_solver_commits_the_state_once_per_step():
    grid = np.array([0.8, 0.6, 0.4, 0.2])
    with jax.numpy_dtype_promotion("standard"):
        out, _, _ = eager(Commits(), grid=grid, sampler=jg.heun())
    # Stage one of step i sees i commits, stage two i + 1: a mean velocity of i + 1/2.
    moved = -0.2 * (0.5 + 1.5 + 2.5)
    np.testing.assert_allclose(out, 0.8 * tf.start() + moved, rtol=1e-5, atol=1e-5)


def test_a_restart_makes_the_memory_invalid():
    main, _ = probes()
    x = tf.start()
    node = jax.tree.map(jnp.float32, paths.Linear().node(0.4))
    parts = jg.chain(jg.sg_prev(2.0))
    state = (jg.guidance.SGPrevState(jnp.full_like(x, 9.0), jnp.ones((), bool)),)
    pairs = {}
    for restart in (False, True):
        step = jg.Step(x, node, tf.labels(), jnp.asarray(restart))
        pair, _ = evaluate(
            {"main": main.network()}, parts.at(0.4), state, step, live=(True,)
        )
        pairs[restart] = pair.denoised
    raw = tf.toy(main.weights, x, jnp.full(tf.BATCH, 0.4), tf.labels()["cond"])
    np.testing.assert_allclose(pairs[True], x - jnp.float32(0.4) * raw, atol=1e-6)
    assert np.abs(pairs[False] - pairs[True]).max() > 1


# 11. dtype is kept.


@pytest.mark.parametrize("network_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_row
def test_samples_keep_the_dtype_of_the_noise(row, dtype, network_dtype):
    def predict(weights, x, *args, **taps):
        return tf.toy(weights, x, *args, **taps).astype(network_dtype)

    main, weak = probes()
    main.predict = weak.predict = predict
    value = jnp.float32(row.value)  # a float32 weight never promotes

    def run(value):
        noise = tf.start(dtype=dtype)
        return tf.sample(row.make(value), main, weak, GRID, jg.heun(), noise=noise)

    assert jax.eval_shape(run, value).dtype == dtype


@every_row
def test_bfloat16_follows_float32(row):
    wide, _, _ = eager(row.make(row.value))
    noise = tf.start().astype(jnp.bfloat16)
    narrow, _, _ = eager(row.make(row.value), noise=noise)
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.08, rtol=0.05)


# 12. Only jax and numpy.


FORBIDDEN = ["flax", "optax", "absl", "ml_collections", "diffrax", "orbax", "torch"]


def test_the_core_imports_only_jax_and_numpy():
    rooms = ("guidance", "samplers", "paths", "schedules", "oracle")
    code = (
        f"import sys, jaxguide, {', '.join(f'jaxguide.{room}' for room in rooms)}; "
        f"print([m for m in {FORBIDDEN!r} if any(n == m or n.startswith(m + '.') "
        "for n in sys.modules)])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


# The house: docstrings and names.


@every_row
def test_the_docstring_states_its_price_and_its_source(row):
    for factory in row.factories:
        assert "NFE:" in factory.__doc__ and "Source:" in factory.__doc__
        assert "Differs from the source:" in factory.__doc__


@every_row
def test_argument_names_are_the_contract(row):
    for part in jg.chain(row.make(row.value)).parts:
        assert list(inspect.signature(part.init).parameters) == ["x"]
        assert list(inspect.signature(part.branches).parameters) == ["network"]
        assert list(inspect.signature(part.live).parameters) == ["t", "index"]
        names = list(inspect.signature(part.apply).parameters)
        assert names == ["guided", "state", "outputs", "step", "live"]
        live = inspect.signature(part.apply).parameters["live"]
        assert live.kind is inspect.Parameter.KEYWORD_ONLY


# Mistakes are named.


def bare(guidance, **options):
    main, _ = probes()
    label = tf.labels()["cond"]
    settings = dict(grid=GRID, sampler=jg.euler(), guidance=guidance) | options
    return jg.generate(main.network(), tf.start(), label, **settings)


def test_a_missing_condition_is_named():
    with pytest.raises(ValueError, match="need a condition named 'null'.*conds="):
        bare(jg.cfg(2.0))


def test_a_missing_network_is_named():
    with pytest.raises(ValueError, match="need a network named 'weak'.*networks="):
        bare(jg.autoguidance(2.0))


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="s2: need a PRNG key"):
        bare(jg.s2(0.5))


def test_no_blocks_to_drop():
    network = jg.Network(lambda x, t, c: x)
    with pytest.raises(ValueError, match="s2: need a network with blocks.*depth=0"):
        jg.generate(
            network, tf.start(), None, grid=GRID, sampler=jg.euler(),
            guidance=jg.s2(0.5), key=jax.random.key(0),
        )  # fmt: skip


def test_an_excluded_block_that_does_not_exist():
    with pytest.raises(ValueError, match="s2: need exclude inside -6..5"):
        bare(jg.s2(0.5, exclude=(6,)), key=jax.random.key(0))


def test_a_prediction_of_another_shape_is_refused():
    network = jg.Network(lambda x, t, c: jnp.concatenate([x, x], axis=-1))
    with pytest.raises(ValueError, match="need predictions shaped like x.*extra"):
        jg.generate(network, tf.start(), None, grid=GRID, sampler=jg.euler())


@pytest.mark.parametrize("kind", ["velocity", "noise"])
def test_networks_of_two_paths_are_refused(kind):
    main, _ = probes()
    weak = jg.Network(lambda x, t, c: x, kind=kind, path=paths.GVP())
    with pytest.raises(ValueError, match=r"one noise path, got Linear\(\) and GVP\(\)"):
        jg.generate(
            main.network(), tf.start(), tf.labels()["cond"], grid=GRID,
            sampler=jg.euler(), guidance=jg.autoguidance(2.0), networks={"weak": weak},
        )  # fmt: skip


def test_another_kind_of_weak_network_is_converted():
    grid = np.linspace(0.9, 0.2, 4)
    main = tf.oracle_probe(MODEL)
    with jax.disable_jit():
        same = tf.sample(jg.autoguidance(2.0), main, tf.oracle_probe(tf.weaker()), grid)
        other = tf.sample(
            jg.autoguidance(2.0), main, tf.oracle_probe(tf.weaker(), "denoised"), grid
        )
    np.testing.assert_allclose(same, other, atol=1e-5)


def test_the_state_of_another_chain_is_refused():
    main, _ = probes()
    x = tf.start()
    node = jax.tree.map(jnp.float32, paths.Linear().node(0.4))
    step = jg.Step(x, node, tf.labels(), jnp.zeros((), bool))
    parts = jg.chain(jg.cfg(2.0), jg.sg_prev(1.0))
    with pytest.raises(ValueError, match="chain: need 2 states, got 1"):
        evaluate(
            {"main": main.network()}, parts.at(0.4), ((),), step, live=(True, True)
        )


def test_a_chain_of_something_else_is_refused():
    with pytest.raises(TypeError, match="chain: need transforms such as"):
        jg.chain(1.5)


def test_chains_flatten_and_an_empty_one_is_the_identity():
    nested = jg.chain(jg.chain(jg.cfg(2.0), jg.sg_prev(1.0)), jg.chain(), jg.rescale())
    assert len(nested.parts) == 3
    none, _, _ = eager(None)
    empty, probe, _ = eager(jg.chain())
    np.testing.assert_array_equal(none, empty)
    assert probe.evaluations() == 5
    assert plan.make_runs(jg.chain(), GRID, np.ones(5, int))[0].stop == 5


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.cfg(float("nan")), "cfg: need a finite scale, got scale=nan"),
        (lambda: jg.cfg("big"), "cfg: need a number for scale, got 'big'"),
        (lambda: jg.cfg(None), "cfg: need a number for scale, got None"),
        (lambda: jg.cfg(2.0, t_lo=0.9, t_hi=0.1), "window: need 0 <= t_lo < t_hi <= 1"),
        (lambda: jg.compose("a", float("inf")), r"compose\[a\]: need a finite weight"),
        (lambda: jg.rescale(1.5), "rescale: need weight <= 1, got weight=1.5"),
        (lambda: jg.rescale(-0.1), "rescale: need weight >= 0, got weight=-0.1"),
        (lambda: jg.s2(0.5, drop=0.0), "s2: need 0 < drop < 1"),
        (lambda: jg.s2(0.5, drop=1.0), "s2: need 0 < drop < 1"),
        (lambda: jg.s2(0.5, num_masks=0), "s2: need an integer num_masks >= 1, got 0"),
        (lambda: jg.sg(1.0, shift=10), "sg: need 0 < shift < 1 .*10 of 1000"),
        (lambda: jg.sg(1.0, shift="a"), "sg: need a number for shift, got 'a'"),
        (lambda: jg.sg(1.0, space="any"), "sg: need a space other than 'any'"),
        (lambda: jg.sg(1.0, space="pixels"), "sg: need space in .*got space='pixels'"),
        (lambda: jg.sg_prev(1.0, space="any"), "sg_prev: need a space other than"),
        (lambda: jg.sg_prev(1.0, space="x"), "sg_prev: need space in"),
        (
            lambda: jg.contrast(1.0, jg.Branch(cond="a"), space="x"),
            "contrast: need space",
        ),
        (lambda: jg.Network(lambda x: x, kind="v"), "Network: need kind in .*kind='v'"),
    ],
)
def test_bad_settings_are_refused_where_they_are_made(make, match):
    with pytest.raises(ValueError, match=match):
        make()
