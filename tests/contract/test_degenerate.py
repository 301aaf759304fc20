"""Gradients are finite where differences, norms and spreads are zero.

A network whose last layer is zero, as before training, predicts 0 or a constant for
every condition: no difference, no spread, no angle. Training through guidance starts
there, so the gradient with respect to weights, number and state must be finite.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxguide as jg
from tests import transforms as tf
from tests.contract.common import EXHAUSTIVE, few_steps
from tests.toy import DEPTH, toy

FAST_COMPILE = True
# What is left of the prediction where the last layer, times w, is zero.
REST = {
    "nothing": lambda x, label: jnp.zeros_like(x),
    "a constant": lambda x, label: jnp.full_like(x, 0.7),
    "the same": lambda x, label: jnp.sin(x),
    "no null": lambda x, label: jnp.where(label == 3, 0.0, jnp.sin(x)),
    "no raw": lambda x, label: jnp.where(label == 3, jnp.sin(x), 0.0),
    "opposite": lambda x, label: jnp.where(label == 3, -1.0, 1.0) * jnp.sin(x),
}
BY_DEFAULT = {("rescale", "a constant"), ("frequency_cfg", "the same")}


def network(rest, w, slope):
    def predict(w, x, t, label, **taps):
        out = toy(jnp.asarray([slope, 0.2]), x, t, label, **taps)
        out, *others = out if isinstance(out, tuple) else (out,)
        out = w * out + REST[rest](x, label.reshape(-1, 1, 1))
        return (out, *others) if others else out

    return jg.Network(jax.tree_util.Partial(predict, w), depth=DEPTH)


def cases():
    for row in tf.ALL_TRANSFORMS:
        for rest in REST:
            marks = [] if (row.name, rest) in BY_DEFAULT else EXHAUSTIVE
            yield pytest.param(row, rest, marks=marks, id=f"{row.name}-{rest}")


# Without spread ICG's random embedding is 0, and TSG's noise has no size.
@pytest.mark.parametrize(("guidance", "want"), [(jg.icg(2.0), 6.0), (jg.tsg(2.0), 3.0)])
def test_gradients_are_finite_at_an_embedding_without_spread(guidance, want):
    """That of an empty prompt may be all zeros, that of time before training."""

    def predict(x, t, embedding, time_embedding=lambda value: value):
        return x * time_embedding(embedding).mean(1, keepdims=True)

    def total(embedding):
        guided, x = jg.guide(predict, guidance), jnp.ones((2, 3))
        out, _ = guided(x, 0.5, embedding, guided.init(x), key=jax.random.key(0))
        return out.sum()

    value, slope = jax.value_and_grad(total)(jnp.full((2, 4), 0.5))
    assert jnp.isclose(value, want) and jnp.isfinite(slope).all()


@pytest.mark.parametrize(("row", "rest"), cases())
def test_gradients_are_finite_where_there_is_nothing_to_guide(row, rest):
    def total(w, number, x):
        main, weak = network(rest, w, 1.3), network(rest, 0.9 * w, 0.9)
        with jax.disable_jit():
            return tf.sample(
                row.make(number), main, weak, few_steps(row), noise=x
            ).sum()

    slopes = jax.grad(total, (0, 1, 2))(
        jnp.float32(0), jnp.float32(row.value), tf.start()
    )
    for slope in slopes:
        assert jnp.isfinite(slope).all()
