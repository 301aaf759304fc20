"""Promises 11 and 12: dtype is kept; only jax and numpy; documented interfaces."""

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from tests import transforms as tf
from tests.contract.common import (
    GRID,
    PROMISES,
    eager,
    every_row,
    few_steps,
    probes,
    rest,
    some_rows,
)

FAST_COMPILE = True


# 11. dtype is kept.


@pytest.mark.parametrize("network_dtype", [*rest(jnp.float32), jnp.bfloat16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@some_rows
def test_samples_keep_the_dtype_of_the_noise(row, dtype, network_dtype):
    def predict(weights, x, *args, **taps):
        out = tf.toy(weights, x, *args, **taps)
        return jax.tree.map(lambda leaf: leaf.astype(network_dtype), out)

    main, weak = probes()
    main.predict = weak.predict = predict
    value = jnp.float32(row.value)  # a float32 weight never promotes

    def run(value):
        noise, grid = tf.start(dtype=dtype), few_steps(row)
        return tf.sample(row.make(value), main, weak, grid, jg.heun(), noise=noise)

    assert jax.eval_shape(run, value).dtype == dtype


@pytest.mark.exhaustive  # test_oracle has the paper's formula in bfloat16
@every_row
def test_bfloat16_follows_float32(row):
    wide, _, _ = eager(row.make(row.value), grid=GRID)
    noise = tf.start().astype(jnp.bfloat16)
    narrow, _, _ = eager(row.make(row.value), noise=noise, grid=GRID)
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, atol=0.08, rtol=0.05)


# Every kind of transform faces every law in the default run.


@pytest.mark.parametrize(
    "row", [row for row in tf.ALL_TRANSFORMS if row.like], ids=lambda row: row.name
)
def test_a_row_that_is_left_to_another_is_like_it(row):
    other = tf.BY_NAME[row.like]
    assert other.like is None
    kinds = [
        [type(part) for part in jg.chain(one.make(one.value)).parts]
        for one in (row, other)
    ]
    assert kinds[0] == kinds[1]
    assert (row.neutral is None) == (other.neutral is None)
    for promise in PROMISES:
        assert getattr(row, promise) == getattr(other, promise), promise


# 12. Only jax and numpy.


FORBIDDEN = ["flax", "optax", "absl", "ml_collections", "diffrax", "orbax", "torch"]


def test_the_core_imports_only_jax_and_numpy():
    rooms = ("guidance", "samplers", "paths", "oracle")
    code = (
        f"import sys, jaxguide, {', '.join(f'jaxguide.{room}' for room in rooms)}; "
        f"print([m for m in {FORBIDDEN!r} if any(n == m or n.startswith(m + '.') "
        "for n in sys.modules)])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


# The house: docstrings and names.


@every_row
def test_the_docstring_states_its_price_and_its_source(row):
    for factory in row.factories:
        assert "NFE:" in factory.__doc__ and "Source:" in factory.__doc__
        assert "Differs from the source:" in factory.__doc__


@every_row
def test_argument_names_are_the_contract(row):
    for part in jg.chain(row.make(row.value)).parts:
        assert list(inspect.signature(part.init).parameters) == ["x"]
        assert list(inspect.signature(part.branches).parameters) == ["network"]
        assert list(inspect.signature(part.live).parameters) == ["t", "index"]
        names = list(inspect.signature(part.apply).parameters)
        assert names == ["guided", "state", "here", "live"]
        live = inspect.signature(part.apply).parameters["live"]
        assert live.kind is inspect.Parameter.KEYWORD_ONLY
