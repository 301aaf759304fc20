"""Recurrence: the same step again after adding its noise back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests import transforms as tf
from tests.contract.common import SAMPLERS, Probing, register, rest

FAST_COMPILE = True
GRID = np.array([0.9, 0.5, 0.2, 0.0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_once_is_the_sampler_itself(name):
    assert jg.recurrent(SAMPLERS[name], 1) is SAMPLERS[name]


# UniPC's corrector is refused, see below.
TAKEN = SAMPLERS | {"unipc": jg.unipc(corrector=False)}


@pytest.mark.parametrize(
    "name",
    ["heun", *rest(*(name for name in TAKEN if name != "heun"))],
)
def test_evaluations_are_as_many_times_more(name):
    main, weak = tf.toy_probe(), tf.toy_probe(0.9)
    guidance = jg.cfg(2.0, t_hi=0.5)
    sampler = jg.recurrent(TAKEN[name], 3)
    with jax.disable_jit():
        out = tf.sample(guidance, main, weak, GRID, sampler)
    once = jg.cost(main.network(), guidance, GRID, TAKEN[name]).nfe
    cost = jg.cost(main.network(), guidance, GRID, sampler)
    assert main.evaluations() == cost.nfe == 3 * once
    assert np.isfinite(out).all()


def test_a_repeated_step_is_the_step_of_the_state_that_was_made_noisy_again():
    """By hand: down, up with the path's noise, down."""
    path, (t, s) = paths.GVP(), (0.7, 0.4)
    main = tf.oracle_probe(tf.mixture(), "noise", path)
    sampler = jg.recurrent(jg.ddim(), 2)
    with jax.disable_jit():
        out = tf.sample(None, main, main, np.array([t, s]), sampler)
    now, then = path.node(t), path.node(s)
    label = tf.labels()["cond"]

    def down(x):
        noise = main.predict(main.weights, x, jnp.full(4, jnp.float32(t)), label)
        clean = (x - float(now.sigma) * noise) / float(now.alpha)
        return float(then.alpha) * clean + float(then.sigma) * noise

    keys = jg.sample_keys(0, jnp.arange(4))
    fresh = jnp.stack([
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 0), 1), (2, 2))
        for key in keys
    ])  # fmt: skip
    kept = float(now.alpha / then.alpha)
    spread = float(np.sqrt(now.sigma**2 - (kept * then.sigma) ** 2))
    x = down(tf.start() * float(now.sigma))
    want = down(kept * x + spread * fresh)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "path",
    [
        paths.VP(),
        pytest.param(paths.Linear(), marks=pytest.mark.exhaustive),
        pytest.param(paths.EDM(5.0), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_the_marginal_is_kept(path):
    """From the exact marginal at t, repeated short steps end in the exact one at s."""
    model = GaussianMixture(jnp.asarray([[0.8]]), jnp.asarray([0.5]), (0,))
    size, t, s = 20000, 0.5, 0.48
    node = path.node(t)
    label = jnp.zeros(size, jnp.int32)
    data = model.sample(jax.random.key(0), label)
    noise = jax.random.normal(jax.random.key(1), data.shape)
    x = float(node.alpha) * data + float(node.sigma) * noise
    out = jg.generate(
        model.network("noise", path), x / float(node.sigma), label,
        grid=np.array([t, s]), sampler=jg.recurrent(jg.ddim(), 8),
        sample_keys=jg.sample_keys(2, jnp.arange(size)),
    )  # fmt: skip
    end = path.node(s)
    mean, std = 0.8 * end.alpha, np.sqrt((0.5 * end.alpha) ** 2 + end.sigma**2)
    # Standard errors below 0.8 % of the standard deviation; four of them.
    np.testing.assert_allclose(np.mean(out), mean, atol=0.03 * std)
    np.testing.assert_allclose(np.std(out), std, rtol=0.025)


class CountState(NamedTuple):
    count: jax.Array


class Watching(Probing):
    """Tells the host which memory it saw."""

    def __init__(self):
        self.seen = []

    def init(self, x):
        return CountState(jnp.zeros((), jnp.int32))

    def branches(self, network):
        return ()

    def apply(self, guided, state, here, *, live):
        self.seen.append(int(state.count))
        return guided, CountState(state.count + 1)


register(Watching)


def test_every_turn_sees_the_memory_of_the_step_before_and_one_is_kept():
    for sampler, want in (
        (jg.recurrent(jg.euler(), 3), [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (jg.recurrent(jg.heun(), 2), [0, 1, 0, 1, 1, 2, 1, 2, 2, 2]),
    ):
        watching, main = Watching(), tf.toy_probe()
        with jax.disable_jit():
            tf.sample(watching, main, main, GRID, sampler)
        assert watching.seen == want


def test_every_turn_draws_anew():
    main, weak = tf.toy_probe(), tf.toy_probe(0.9)
    grid = np.array([0.8, 0.5])
    with jax.disable_jit():
        tf.sample(jg.s2(0.5, drop=0.4), main, weak, grid, jg.recurrent(jg.ddim(), 8))
    jax.effects_barrier()
    kept = {tuple(seen.keep) for seen in main.calls if seen.keep is not None}
    assert len(kept) > 1


@pytest.mark.parametrize("repeats", [0, -1, 1.5, "2"])
def test_a_number_of_turns_is_needed(repeats):
    with pytest.raises(ValueError, match="recurrent: need an integer repeats >= 1"):
        jg.recurrent(jg.ddim(), repeats)


def test_keys_are_needed():
    with pytest.raises(ValueError, match="need sample_keys"):
        jg.generate(
            tf.toy_probe().network(), tf.start(), tf.labels()["cond"], grid=GRID,
            sampler=jg.recurrent(jg.ddim(), 2),
        )  # fmt: skip


def test_a_sampler_that_corrects_the_step_before_is_refused():
    with pytest.raises(ValueError, match="recurrent: need a sampler that leaves"):
        jg.recurrent(jg.unipc(), 2)
