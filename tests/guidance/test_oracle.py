"""Every transform against its paper's formula in float64, along whole trajectories."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from tests import reference as ref, transforms as tf
from tests.contract.common import marked, one_of_every_kind

FAST_COMPILE = True
MAIN, WEAK = tf.mixture(), tf.weaker()
MAIN64, WEAK64 = tf.in_float64(MAIN), tf.in_float64(WEAK)
# Both edges of every window in the table, and t = 1 itself, are among its times.
GRID = np.array([1.0, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1, 0.0])

# The rest acts inside a transformer; a mixture has none (see test_inside.py).
KNOWN = [row for row in tf.ALL_TRANSFORMS if row.expected is not None]

typical_rows = pytest.mark.parametrize("row", marked(KNOWN))
some_rows = pytest.mark.parametrize("row", one_of_every_kind(KNOWN))


def flat(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)


def kept_blocks(probe, grid):
    """The masks that the network was really given at each step of `grid`."""
    jax.effects_barrier()
    kept = [[] for _ in grid[:-1]]
    for seen in probe.calls:
        if seen.keep is not None:
            step = int(np.argmin(np.abs(grid[:-1] - float(seen.t[0]))))
            kept[step].append(seen.keep.tolist())
    return kept


def drawn_labels(probe, grid, cond):
    """Labels other than `cond` that the network was told at each step."""
    jax.effects_barrier()
    drawn = [cond for _ in grid[:-1]]
    for seen in probe.calls:
        step = int(np.argmin(np.abs(grid[:-1] - float(seen.t[0]))))
        for label in seen.label.reshape(-1, len(cond)):
            drawn[step] = drawn[step] if np.array_equal(label, cond) else label
    return drawn


def expected(row, noise, probe, grid):
    """Euler on the formula of the row, in float64, from the same noise and masks."""
    conds = {k: np.asarray(v) for k, v in tf.labels(len(noise)).items()}

    def rule(scene):
        return row.expected(scene, row.value)

    kept = kept_blocks(probe, grid)
    drawn = drawn_labels(probe, grid, conds["cond"])
    return ref.euler(MAIN64, WEAK64, rule, flat(noise), grid, conds, kept, drawn)


def sampled(row, dtype=jnp.float32, batched=False, grid=GRID):
    main, weak = tf.oracle_probe(MAIN), tf.oracle_probe(WEAK)
    noise = tf.start().astype(dtype)
    out = tf.sample(row.make(row.value), main, weak, grid, noise=noise, batched=batched)
    return out, noise, main, weak


def bfloat16_error(row):
    """Largest error of two steps at mid noise, all in bfloat16 but the formula."""
    grid = np.array([0.8, 0.6, 0.4])
    with jax.disable_jit():
        out, noise, main, _ = sampled(row, jnp.bfloat16, grid=grid)
    assert out.dtype == jnp.bfloat16
    start = np.asarray(noise * jnp.asarray(0.8, jnp.bfloat16), np.float64)
    return np.abs(flat(out) - expected(row, start, main, grid)).max()


@functools.cache
def unguided():
    """Where the noise of all rows leads without guidance."""
    row = tf.Row("none", None, 0, 0, None, lambda s, w: s.raw, ())
    return expected(row, tf.start(), tf.oracle_probe(MAIN), GRID)


@some_rows
def test_float32_samples_are_the_formulas(row):
    with jax.disable_jit():
        out, noise, main, _ = sampled(row)
    want = expected(row, noise, main, GRID)
    assert np.abs(want - unguided()).max() > 0.01
    # Guided trajectories near a mode boundary amplify the last bit; 5e-5 is 400 ulp.
    np.testing.assert_allclose(flat(out), want, atol=5e-5, rtol=5e-5)


@pytest.mark.exhaustive
@typical_rows
def test_bfloat16_samples_stay_near_the_formulas(row):
    """Eight bits: 1 % per operation, so a loose bound on a short trajectory."""
    assert bfloat16_error(row) < 0.15


def test_the_oracle_itself_is_the_independent_mixture():
    x = tf.start(6)
    label = jnp.asarray([0, 1, 2, 3, 3, 0], jnp.int32)
    for t in (1.0, 0.6, 0.03):
        for keep in (None, jnp.asarray([0, 2, 3, 5])):
            added = 0.0 if keep is None else MAIN.blocks[1] + MAIN.blocks[4]
            got = MAIN.predict(
                "velocity", jg.Network(lambda x: x).path, x, jnp.full(6, t), label, keep
            )
            want = MAIN64.velocity(flat(x), t, np.asarray(label), added)
            np.testing.assert_allclose(flat(got), want, atol=1e-5)


def integrate(rule, grid, x):
    """Guided Euler in float64 on the oracle's velocity."""
    conds = {"cond": np.zeros(len(x), int)}
    kept = [[] for _ in grid[:-1]]
    return ref.euler(MAIN64, WEAK64, rule, x, grid, conds, kept)


def adams_bashforth(x, grid):
    """AB2 with an Euler start, written from the textbook."""
    label = np.zeros(len(x), int)
    before = None
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        slope = MAIN64.velocity(x, t, label)
        step = slope if before is None else 1.5 * slope - 0.5 * before
        x, before = x + (s - t) * step, slope
    return x


def test_sg_prev_with_weight_one_half_is_adams_bashforth_2():
    noise = tf.start()
    label = jnp.zeros(tf.BATCH, jnp.int32)
    grid = np.linspace(0.9, 0.3, 13)
    out = jg.generate(
        MAIN.network(), noise, label, grid=grid, sampler=jg.euler(),
        guidance=jg.sg_prev(0.5, t_hi=1.0),
    )  # fmt: skip
    want = adams_bashforth(0.9 * flat(noise), grid)
    np.testing.assert_allclose(flat(out), want, atol=2e-5)
    plain = integrate(lambda s: s.raw, grid, 0.9 * flat(noise))
    assert np.abs(plain - want).max() > 1e-3


def test_sg_prev_raises_the_order_of_euler_from_one_to_two():
    noise = 0.9 * flat(tf.start())
    exact = adams_bashforth(noise, np.linspace(0.9, 0.3, 3000))

    def error(rule, steps):
        return np.abs(
            integrate(rule, np.linspace(0.9, 0.3, steps + 1), noise) - exact
        ).max()

    for weight, order in ((0.0, 1), (0.5, 2)):
        rule = lambda s, w=weight: ref.sg_prev(s, w)  # noqa: E731
        measured = np.log2(error(rule, 40) / error(rule, 80))
        assert abs(measured - order) < 0.3


def heun64(x, grid, weight):
    """Heun whose two stages both remember: the corrector sees this step's first raw."""
    label = np.zeros(len(x), int)
    before = None
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        raw = MAIN64.velocity(x, t, label)
        first = raw if before is None else raw + weight * (raw - before)
        second_raw = MAIN64.velocity(x + (s - t) * first, s, label)
        second = second_raw + weight * (second_raw - raw)
        x, before = x + (s - t) * (first + second) / 2, raw
    return x


def test_heun_remembers_the_first_stage_of_the_step_before():
    noise = tf.start()
    grid = np.array([0.9, 0.75, 0.6, 0.45, 0.3])
    out = jg.generate(
        MAIN.network(), noise, jnp.zeros(tf.BATCH, jnp.int32), grid=grid,
        sampler=jg.heun(), guidance=jg.sg_prev(0.7, t_hi=1.0),
    )  # fmt: skip
    want = heun64(0.9 * flat(noise), grid, 0.7)
    np.testing.assert_allclose(flat(out), want, atol=2e-5)
