"""Promises 9 and 10: coupling to the sampler; state commits once per step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import evaluate
from tests import transforms as tf
from tests.contract.common import (
    SAMPLERS,
    Probing,
    eager,
    probes,
    register,
    some_rows,
)

FAST_COMPILE = True


# 9. Guidance and sampler may couple.


class CFGpp(Probing):
    """CFG++: denoise with the guided prediction, renoise with the unconditional."""

    null = jg.Branch(cond="null")

    def __init__(self, strength):
        self.strength = strength

    def branches(self, network):
        return (self.null,)

    def apply(self, guided, state, here, *, live):
        null, step = here[self.null], here.step
        prediction = null + self.strength * (here[jg.Branch()] - null)
        _, noise = paths.to_pair(here.network.kind, null, step.x, step.node)
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
    main = tf.oracle_probe(tf.mixture(), kind, path)
    with jax.disable_jit():
        coupled = tf.sample(CFGpp(strength), main, main, grid, SAMPLERS[name])
        plain = tf.sample(jg.cfg(effective), main, main, grid, SAMPLERS[name])
    np.testing.assert_allclose(coupled, plain, rtol=1e-4, atol=1e-4)


@some_rows
def test_a_method_that_does_not_couple_leaves_the_pair_consistent(row):
    if row.coupled:
        pytest.skip("it gives the sampler a noise of its own")
    main, weak = probes()
    x, t = tf.start(), 0.6
    node, end = (jax.tree.map(jnp.float32, paths.GVP().node(s)) for s in (t, 0.5))
    parts = jg.chain(row.make(row.value))
    networks = {"main": main.network(), "weak": weak.network()}
    options = dict(live=parts.live(t), key=jax.random.key(0))
    step = jg.Step(x, node, tf.labels(), jnp.zeros((), bool), next_node=end)
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

    def apply(self, guided, state, here, *, live):
        shown = guided._replace(
            prediction=jnp.full_like(here.step.x, 1.0) * state.count
        )
        return shown, CommitsState(state.count + 1)


class CommitsState(NamedTuple):
    count: jax.Array


register(Commits)


@pytest.mark.exhaustive
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
