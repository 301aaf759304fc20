"""Single samples: `guide(..., batch_ndim=0)` under vmap is the batch, for every row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from tests import transforms as tf
from tests.contract.common import EXHAUSTIVE
from tests.toy import DEPTH, toy

FAST_COMPILE = True
WEIGHTS = {"main": jnp.asarray([1.3, 0.2]), "weak": jnp.asarray([0.9, 0.2])}
TIMES = (0.65, 0.5, 0.3)
# `nag` sees two conditions side by side in one batch; what draws, draws per batch.
ROWS = [row for row in tf.ALL_TRANSFORMS if not row.stochastic and row.name != "nag"]
BY_DEFAULT = ("apg",)


def mark(row):
    return [] if row.name in BY_DEFAULT else EXHAUSTIVE


def network(name, single):
    def predict(x, t, label, **taps):
        return toy(WEIGHTS[name], x, jnp.asarray(t), label, **taps)

    def of_one(x, t, label, **taps):
        assert x.shape == tf.SHAPE and jnp.ndim(t) == 0 and label.shape == ()
        out = predict(x[None], t, label[None], **taps)
        return jax.tree.map(lambda leaf: leaf[0], out)

    return of_one if single else predict


def guided(guidance, *, single):
    return jg.guide(
        network("main", single), guidance, depth=DEPTH, batched=False,
        networks={"weak": network("weak", single)}, batch_ndim=0 if single else 1,
    )  # fmt: skip


def walk(function, x, conds):
    """Three Euler steps on the pair, so that memories and couplings take part."""
    state = function.init(x)
    for t, end in zip(TIMES, (*TIMES[1:], 0.1), strict=True):
        pair, state = function.pair(
            x, t, conds["cond"], state, conds=conds, next_t=end, key=jax.random.key(0)
        )
        x = (1 - end) * pair.denoised + end * pair.noise
    return x


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row, id=row.name, marks=[] if row.name in BY_DEFAULT else EXHAUSTIVE
        )
        for row in ROWS
    ],
)
def test_single_samples_under_vmap_are_the_batch(row):
    conds, guidance = tf.labels(), row.make(row.value)
    batch = walk(guided(guidance, single=False), tf.start(), conds)
    one = guided(guidance, single=True)
    each = jax.vmap(lambda x, conds: walk(one, x, conds))(tf.start(), conds)
    np.testing.assert_allclose(each, batch, rtol=2e-5, atol=2e-5)
    alone = walk(one, tf.start()[0], jax.tree.map(lambda leaf: leaf[0], conds))
    np.testing.assert_allclose(alone, batch[0], rtol=2e-5, atol=2e-5)


def test_branches_in_one_forward_are_rows_of_the_function_of_one_sample():
    one = guided(jg.cfg(3.0), single=True)
    both = jg.guide(network("main", True), jg.cfg(3.0), batched=True, batch_ndim=0)
    x, conds = tf.start()[1], jax.tree.map(lambda leaf: leaf[1], tf.labels())
    outs = [
        f(x, 0.4, conds["cond"], f.init(x), conds={"null": conds["null"]})[0]
        for f in (one, both)
    ]
    assert outs[0].shape == tf.SHAPE
    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-6)


def test_the_call_is_in_the_direction_of_the_function():
    """time="data" and batch_ndim=0 together: minus the velocity of noise time."""
    plain = network("main", True)
    mirrored = jg.guide(
        lambda x, t, label: -plain(x, 1 - t, label), jg.apg(3.0, radius=1.0),
        time="data", batch_ndim=0,
    )  # fmt: skip
    straight = jg.guide(plain, jg.apg(3.0, radius=1.0), batch_ndim=0)
    x, conds = tf.start()[2], jax.tree.map(lambda leaf: leaf[2], tf.labels())
    found, want = (
        f(x, t, conds["cond"], f.init(x), conds=conds)[0]
        for f, t in ((mirrored, 0.25), (straight, 0.75))
    )
    np.testing.assert_allclose(found, -want, rtol=1e-6)


def test_a_function_of_a_batch_is_refused_under_vmap_where_it_can_be_told():
    batch, conds = guided(jg.apg(3.0), single=False), tf.labels()

    def mapped(x, label):
        return batch(x, 0.5, label, batch.init(x), conds={"null": label})[0]

    with pytest.raises(ValueError, match=r"one row per sample.*batch_ndim=0"):
        jax.vmap(mapped)(tf.start(), conds["cond"])

    def of_a_row(x):
        same = jg.guide(lambda x, t, c: x, jg.chain(jg.sg(1.0), jg.rescale(0.7)))
        return same(x, 0.5, None, same.init(x))[0]

    with pytest.raises(ValueError, match=r"axes of their own.*batch_ndim=0"):
        jax.vmap(of_a_row)(jnp.ones((3, 4)))


TAPS = {
    "attention": (
        jg.seg(1.0, layers="all"),
        (1, 4, 2),
        r"seg: need queries \[B, h",
    ),
    "block": (jg.tpg(1.0), (4, 2), r"tpg: need tokens \[B, N, width\]"),
    "time_embedding": (jg.tsg(2.0), (8,), r"tsg: need an embedding \[B, width\]"),
}


@pytest.mark.parametrize("tap", TAPS)
def test_the_inside_of_a_network_of_one_sample_needs_a_batch_axis(tap):
    guidance, shape, match = TAPS[tap]
    inside = jnp.ones(shape)

    def predict(x, t, label, **taps):
        if tap == "attention" and taps:
            taps[tap](lambda q, k, v: v, inside, inside, inside, 0)
        elif tap == "block" and taps:
            taps[tap](lambda tokens: tokens, inside, 0)
        elif taps:
            taps[tap](inside)
        return x

    one = jg.guide(predict, guidance, batch_ndim=0, depth=2)
    with pytest.raises(ValueError, match=match):
        one(
            jnp.ones((2, 2)),
            0.5,
            None,
            one.init(jnp.ones((2, 2))),
            key=jax.random.key(0),
        )


def test_what_sees_two_rows_at_once_is_refused():
    one = guided(jg.nag(3.0, layers="all"), single=True)
    x, conds = tf.start()[0], jax.tree.map(lambda leaf: leaf[0], tf.labels())
    with pytest.raises(ValueError, match=r"nag: need .*side by side.*batch_ndim=0"):
        one(x, 0.5, conds["cond"], one.init(x), conds=conds)
    with pytest.raises(ValueError, match="guide: need batch_ndim 0 or 1, got 2"):
        jg.guide(network("main", True), jg.cfg(2.0), batch_ndim=2)
