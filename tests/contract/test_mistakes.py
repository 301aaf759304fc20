"""Mistakes are named in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import _plan as plan, evaluate
from tests import transforms as tf
from tests.contract.common import (
    GRID,
    eager,
    probes,
)

FAST_COMPILE = True


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
    main = tf.oracle_probe(tf.mixture())
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
    with pytest.raises(ValueError, match="chain: need transforms such as"):
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
