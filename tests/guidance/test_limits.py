"""Ends of the linear methods: where a term is nothing, or a scale is another method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import DropBlocks
from tests import transforms as tf
from tests.guidance.test_linear import LABELS, MAIN, NULL, RAW, X, close, guided

FAST_COMPILE = True


def test_cfg_at_zero_is_the_null_prediction_and_at_one_the_raw():
    close(guided(jg.cfg(0.0))[0], NULL)
    np.testing.assert_array_equal(guided(jg.cfg(1.0))[0], guided(jg.chain())[0])
    assert np.abs(RAW - NULL).max() > 0.1


def test_domain_guidance_by_the_network_itself_is_cfg():
    want, _ = guided(jg.cfg(2.5))
    one = jg.reference_network(2.5, network="weak", cond="null")
    np.testing.assert_array_equal(guided(one, weak=MAIN)[0], want)


@pytest.mark.parametrize("dynamic", [False, True])
def test_self_guidance_of_a_network_that_does_not_see_time_is_nothing(dynamic):
    function = jg.guide(lambda x, t, label: jnp.sin(x), jg.sg(3.0, dynamic=dynamic))
    out, _ = function(X, 0.6, LABELS["cond"], function.init(X))
    np.testing.assert_array_equal(out, jnp.sin(X))


@pytest.mark.parametrize("masks", [1, 3])
def test_s2_that_leaves_nothing_out_is_nothing(monkeypatch, masks):
    def all_blocks(self, here):
        return {"keep_blocks": jnp.arange(here.called.depth, dtype=jnp.int32)}

    changed = guided(jg.s2(0.8, num_masks=masks))[0]
    monkeypatch.setattr(DropBlocks, "taps", all_blocks)
    same, probe = guided(jg.s2(0.8, num_masks=masks))
    np.testing.assert_allclose(same, guided(jg.chain())[0], atol=1e-6)
    assert probe.evaluations() == 1 + masks
    assert np.abs(changed - same).max() > 1e-3


def test_conditional_scores_average_to_the_unconditional_one():
    """sum_c p(c | x) (s_c - s_null) = 0: no class is favoured by CFG on average."""
    node = jax.tree.map(jnp.float32, MAIN.network().path.node(0.5))
    classes = [jnp.full(len(X), c, jnp.int32) for c in range(MAIN.num_classes)]
    logs = jnp.stack([MAIN.log_density(X, c, node) for c in classes])
    share = np.asarray(jax.nn.softmax(logs, axis=0))  # classes are equally likely
    null = MAIN.score(X, tf.labels()["null"], node)
    gaps = np.stack([MAIN.score(X, c, node) - null for c in classes])
    assert np.abs(gaps).max() > 0.5
    total = (share.reshape(*share.shape, 1, 1) * gaps).sum(axis=0)
    np.testing.assert_allclose(total, 0, atol=2e-5)
