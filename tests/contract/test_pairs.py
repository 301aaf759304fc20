"""Any two transforms stand in one chain; those that only add to it commute."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import AB2, Contrast, evaluate
from jaxguide.guidance._self_guidance import SGPrev
from tests import transforms as tf
from tests.contract.common import rest

FAST_COMPILE = True

# A memory is filled at the first time and used at the second, inside every window.
TIMES = (0.65, 0.55, 0.45)
ADDING = (Contrast, SGPrev, AB2)


def network(slope):
    predict = jax.tree_util.Partial(tf.toy, jnp.asarray([slope, 0.2]))
    return jg.Network(predict, depth=tf.DEPTH)


NETWORKS = {"main": network(1.3), "weak": network(0.9)}


def steps(guidance):
    """The guided pairs of Euler steps of the toy network, not compiled."""
    parts, path = jg.chain(guidance), NETWORKS["main"].path
    x, found = tf.start(), []
    state = parts.init(x)
    node = lambda t: jax.tree.map(jnp.float32, path.node(t))  # noqa: E731
    for i, (t, end) in enumerate(itertools.pairwise(TIMES)):
        first = jnp.asarray(i == 0)
        step = jg.Step(x, node(t), tf.labels(), first, i, node(end))
        options = dict(live=parts.live(t, i), key=jax.random.key(i))
        with jax.disable_jit():
            pair, state = evaluate(NETWORKS, parts.at(t), state, step, **options)
        found.append(pair)
        x = jnp.float32(1 - end) * pair.denoised + jnp.float32(end) * pair.noise
    return [(np.asarray(pair.denoised), np.asarray(pair.noise)) for pair in found]


def make(row):
    return row.make(row.value)


def adds(row):
    """Whether every part of the row adds a term that does not see the others' and
    draws nothing (a draw depends on the place in the chain)."""
    parts = jg.chain(make(row)).parts
    return not row.stochastic and all(isinstance(part, ADDING) for part in parts)


ROWS = [row for row in tf.ALL_TRANSFORMS if row.name != "chain"]
LINEAR = [row for row in ROWS if adds(row)]


def traced(*guidance):
    """Shapes of one guided step inside every window, traced only."""
    parts, path = jg.chain(*guidance), NETWORKS["main"].path
    t, end = TIMES[1:]
    here, there = (jax.tree.map(jnp.float32, path.node(time)) for time in (t, end))

    def run(x):
        step = jg.Step(x, here, tf.labels(), jnp.asarray(False), 1, there)
        options = dict(live=parts.live(t, 1), key=jax.random.key(0))
        return evaluate(NETWORKS, parts.at(t), parts.init(x), step, **options)[0]

    return jax.eval_shape(run, tf.start())


def assert_like_x(found):
    for leaf in jax.tree.leaves(found):
        assert (leaf.shape, leaf.dtype) == (tf.start().shape, tf.start().dtype)


@pytest.mark.parametrize("order", [1, *rest(-1)])
def test_all_transforms_stand_in_one_chain_so_any_two_do(order):
    assert_like_x(traced(*map(make, ROWS[::order])))


# Two alone, too: the next in the table is of the same family, the others are not.
@pytest.mark.parametrize("distance", [7, *rest(1, 23)])
def test_two_transforms_stand_in_one_chain(distance):
    for index, row in enumerate(ROWS):
        assert_like_x(traced(make(ROWS[index - distance]), make(row)))


def assert_same(left, right, note=""):
    size = max(1.0, max(np.abs(leaf).max() for leaf in jax.tree.leaves(left)))
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * size, rtol=2e-5, err_msg=note)


@pytest.mark.parametrize(
    "index",
    [*range(0, len(LINEAR), 3), *rest(*(n for n in range(len(LINEAR)) if n % 3))],
    ids=lambda index: LINEAR[index].name,
)
def test_transforms_that_only_add_commute_with_the_next(index):
    one, other = LINEAR[index], LINEAR[(index + 3) % len(LINEAR)]
    left, right = jg.chain(make(one), make(other)), jg.chain(make(other), make(one))
    assert_same(steps(left), steps(right), other.name)


def test_all_transforms_that_only_add_commute():
    assert len(LINEAR) > 20
    # A tenth of each, so that the sum stays near the unguided step.
    some = [row.make(row.neutral + (row.value - row.neutral) / 10) for row in LINEAR]
    assert_same(steps(jg.chain(*some)), steps(jg.chain(*reversed(some))))


def test_the_terms_of_one_step_add_up():
    (raw, _), _ = steps(jg.chain())
    rows = [row for row in LINEAR if not row.memory]
    terms = [steps(make(row))[0][0] - raw for row in rows]
    total, _ = steps(jg.chain(*map(make, rows)))[0]
    size = max(1.0, np.abs(terms).max())
    np.testing.assert_allclose(total - raw, sum(terms), atol=1e-4 * size)


def test_what_acts_on_the_running_result_does_not_commute():
    left = steps(jg.chain(jg.cfg(3.0), jg.negative(2.0), jg.rescale(0.7)))
    right = steps(jg.chain(jg.cfg(3.0), jg.rescale(0.7), jg.negative(2.0)))
    assert np.abs(left[0][0] - right[0][0]).max() > 1e-3
