"""Neutral is bitwise exact: scale 1 and weight 0 change nothing, also when traced.

The network ends in a matrix product, as real ones do: the compiler cannot merge its
arithmetic with what comes after. Compiled without XLA's optimisations. With them a
*traced* neutral number may still change the last bit (energies: 1 ulp on CPU), because
the sampler's arithmetic is fused differently around the branch that is then selected
away. A neutral number known on the host leaves the branch out altogether.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import add_scaled
from tests import quick, transforms as tf
from tests.contract.common import few_neutral_rows, rest, some_neutral_rows
from tests.toy import toy

FAST_COMPILE = True
# Inside every window of the table, with a step before it for the memories.
GRID = np.array([0.65, 0.55, 0.45])


def ends_in_a_product(weights, x, t, label, **taps):
    """The toy network times the identity matrix."""
    out = toy(weights, x, t, label, **taps)
    out, *rest = out if isinstance(out, tuple) else (out,)
    one = jnp.eye(out.shape[-1], dtype=out.dtype)
    out = jnp.matmul(out, one, precision="highest")
    return (out, *rest) if rest else out


def network(slope):
    predict = jax.tree_util.Partial(ends_in_a_product, jnp.asarray([slope, 0.2]))
    return jg.Network(predict, depth=tf.DEPTH)


# Two for all tests: what leaves guidance out is one program for all rows.
MAIN, WEAK = network(1.3), network(0.9)


def generate(guidance, noise):
    return tf.sample(guidance, MAIN, WEAK, GRID, noise=noise)


def compiled(make):
    """(number, noise) -> samples as one program, the same way for every guidance."""
    return jax.jit(
        lambda number, noise: generate(make(number), noise),
        compiler_options=quick.AS_USERS,
    )


@pytest.fixture(scope="module")
def unguided():
    """The base results, once per noise; without guidance once for all rows."""
    found = {}

    def get(row, dtype, traced=False):
        known = (row.name if row.base().parts else "", dtype, traced)
        if known not in found:
            noise = tf.start().astype(dtype)
            run = compiled(lambda number: row.base()) if traced else None
            out = run(jnp.float32(0), noise) if traced else generate(row.base(), noise)
            found[known] = np.asarray(out)
        return found[known]

    return get


def bits(x):
    """The bit patterns, so that -0.0 is not 0.0 and NaN is itself."""
    x = np.asarray(x)
    return x.view(np.uint16 if x.dtype.itemsize == 2 else np.uint32)


@pytest.mark.parametrize("dtype", [jnp.float32, *rest(jnp.bfloat16)])
@few_neutral_rows
def test_a_traced_neutral_number_is_bitwise_unguided(row, dtype, unguided):
    run = compiled(row.make)
    zeros = (0.0, -0.0) if row.neutral == 0 else (1.0,)
    for neutral in zeros:
        out = run(jnp.float32(neutral), tf.start().astype(dtype))
        np.testing.assert_array_equal(
            bits(out), bits(unguided(row, dtype, traced=True))
        )


@some_neutral_rows  # the others: op by op, see test_cost.py
def test_a_neutral_number_on_the_host_is_bitwise_unguided(row, unguided):
    out = generate(row.make(row.neutral), tf.start())
    np.testing.assert_array_equal(bits(out), bits(unguided(row, jnp.float32)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_adding_zero_times_anything_keeps_every_bit(dtype):
    base = jnp.asarray([1.5, -0.0, 0.0, jnp.inf, jnp.nan, 1e-3], dtype)
    bad = jnp.asarray([jnp.nan, 1.0, -1.0, jnp.inf, 2.0, jnp.inf], dtype)
    for zero in (0.0, -0.0):
        out = jax.jit(add_scaled)(base, jnp.float32(zero), bad)
        assert out.dtype == dtype
        np.testing.assert_array_equal(bits(out), bits(base))


def test_a_weight_per_sample_leaves_the_neutral_samples_alone(unguided):
    scales = jnp.asarray([1.0, 2.0, 1.0, 3.0])
    out = generate(jg.cfg(scales), tf.start())
    base = unguided(tf.BY_NAME["cfg"], jnp.float32)
    same = (bits(out) == bits(base)).reshape(4, -1).all(axis=1)
    assert same.tolist() == [True, False, True, False]


def test_the_gradient_at_neutral_is_the_difference():
    base, difference = jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, -4.0])
    slope = jax.jacobian(lambda w: add_scaled(base, w, difference))(0.0)
    np.testing.assert_array_equal(slope, difference)
