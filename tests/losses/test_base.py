"""Draws of single examples, changed targets, and the times of a batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import losses, paths
from jaxguide.losses import base

FAST_COMPILE = True


@pytest.mark.parametrize(
    "t_sampling",
    [
        losses.stratified_t,
        *(
            pytest.param(times, marks=pytest.mark.exhaustive)
            for times in (
                losses.uniform_t,
                losses.logit_normal_t(),
                losses.logit_normal_t(base=losses.stratified_t),
            )
        ),
    ],
)
def test_a_batch_in_parts_draws_what_the_whole_batch_draws(key, t_sampling):
    @functools.partial(jax.jit, static_argnums=(0, 1))
    def drawn(size, first):
        draws = losses.draws(key, size, first=first, total=12)
        one, other = draws.split(2)
        return t_sampling(one), other.normal((2,)), other.integers(0, 9)

    parts = [drawn(4, first) for first in (0, 4, 8)]
    for whole, cut in zip(drawn(12, 0), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(cut))


def test_examples_differ_and_draws_pass_through(key):
    draws = losses.draws(key, 500)
    assert len(np.unique(draws.uniform())) == 500
    assert losses.draws(draws, 500) is draws
    other = losses.draws(jax.random.key(1), 500)
    assert not np.any(draws.uniform() == other.uniform())


def test_numbers_have_their_range_and_moments(key):
    draws = losses.draws(key, 4000)
    spread = draws.uniform(2.0, 5.0)
    assert 2 <= spread.min() and spread.max() < 5
    np.testing.assert_allclose(spread.mean(), 3.5, atol=0.05)
    normal = draws.normal((3,))
    assert normal.shape == (4000, 3)
    np.testing.assert_allclose([normal.mean(), normal.std()], [0, 1], atol=0.03)
    counts = np.bincount(draws.integers(1, 4), minlength=5)
    np.testing.assert_allclose(counts, [0, 4000 / 3, 4000 / 3, 4000 / 3, 0], atol=120)


def test_stratified_times_hit_every_part_once(key):
    t = np.asarray(losses.stratified_t(losses.draws(key, 64)))
    np.testing.assert_array_equal(np.sort(np.floor(t * 64)), np.arange(64))
    assert not np.array_equal(np.argsort(t), np.arange(64))


@pytest.mark.parametrize("on", [0, 0.0, 2.0])
def test_a_change_is_added_or_never_computed(on):
    def change():
        calls.append(1)
        return jnp.ones((2, 3))

    calls = []
    strength = jnp.array([0.5, 2.0])
    moved = base.add_change(jnp.ones((2, 3)), strength, change, on=on)
    assert len(calls) == (1 if on else 0)
    added = np.array([[0.5], [2.0]]) if on else 0.0
    np.testing.assert_array_equal(moved, np.ones((2, 3)) + added)


def test_a_change_that_a_traced_number_turns_off_is_not_computed():
    ran = []

    def change():
        jax.debug.callback(lambda: ran.append(1))
        return jnp.ones((2, 3))

    @jax.jit
    def moved(on):
        return base.add_change(jnp.zeros((2, 3)), jnp.ones(2), change, on=on)

    assert float(moved(jnp.float32(0)).sum()) == 0
    jax.effects_barrier()
    assert not ran
    assert float(moved(jnp.float32(0.3)).sum()) == 6
    jax.effects_barrier()
    assert ran


def test_no_gradient_flows_through_a_change():
    def total(value, on):
        change = lambda: value * jnp.ones((2, 3))  # noqa: E731
        return base.add_change(jnp.zeros((2, 3)), jnp.ones(2), change, on=on).sum()

    for on in (1.0, jnp.float32(1.0)):
        assert float(jax.grad(total)(jnp.float32(2.0), on)) == 0


def test_a_noisy_batch_is_what_the_path_makes(key):
    x0 = jax.random.normal(key, (50, 2, 2, 1))
    path = paths.GVP()
    noisy = base.corrupt(
        x0, losses.draws(key, 50), path=path, t_sampling=losses.uniform_t
    )
    angle = np.asarray(noisy.t, np.float64)[:, None, None, None] * np.pi / 2
    expected = np.cos(angle) * x0 + np.sin(angle) * noisy.noise
    np.testing.assert_allclose(noisy.x, expected, atol=1e-6)
    inside = noisy.inside(0.25, 0.5)
    np.testing.assert_array_equal(inside, (noisy.t >= 0.25) & (noisy.t < 0.5))


def test_half_precision_draws_the_same_noise(key):
    x0 = jnp.zeros((20, 4, 4, 1))
    draws = losses.draws(key, 20)
    options = dict(path=paths.Linear(), t_sampling=losses.uniform_t)
    wide = base.corrupt(x0, draws, **options)
    narrow = base.corrupt(x0.astype(jnp.bfloat16), draws, **options)
    assert narrow.x.dtype == jnp.bfloat16 and narrow.t.dtype == jnp.float32
    np.testing.assert_allclose(narrow.noise.astype(jnp.float32), wide.noise, rtol=2**-7)
    np.testing.assert_array_equal(narrow.t, wide.t)
