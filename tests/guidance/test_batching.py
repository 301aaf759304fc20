"""How many branches share a call: by their rows, and by the device compiled for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.errors import InputError
from jaxguide.guidance import MOST_ROWS, rows_on
from tests import transforms as tf

FAST_COMPILE = True
GRID = np.array([0.6, 0.5])


def network(x, t, cond):
    """With one operation that nothing else in a program has."""
    return jnp.cbrt(x + t[:, None] + cond[:, None])


def calls(platform, batch, **options):
    """Network calls in a program that is lowered here for another device."""

    def sample(x, cond):
        return jg.generate(
            jg.Network(network), x, cond, guidance=jg.cfg(2.0), grid=GRID,
            sampler=jg.euler(), conds={"null": 0 * cond}, **options,
        )  # fmt: skip

    x, cond = jnp.ones((batch, 2)), jnp.ones(batch)
    exported = jax.export.export(jax.jit(sample), platforms=[platform])(x, cond)
    return exported.mlir_module().count("stablehlo.cbrt")


@pytest.mark.parametrize(
    ("platform", "batch", "options", "want"),
    [
        ("cpu", 4, {}, 2),
        ("cuda", 4, {}, 1),
        ("cuda", 64, {}, 1),
        ("tpu", 32, {}, 1),
        ("tpu", 64, {}, 2),
        ("tpu", 64, dict(batched=True), 1),
        ("cpu", 4, dict(batched=8), 1),
        ("cuda", 5, dict(batched=8), 2),
    ],
)
def test_a_program_is_made_for_the_device_that_it_is_lowered_for(
    platform, batch, options, want
):
    assert calls(platform, batch, **options) == want


def test_the_table_knows_every_name_of_a_platform():
    assert rows_on("gpu") == MOST_ROWS["cuda"] and rows_on("tpu") == 64


@pytest.mark.parametrize(
    ("batched", "rows"),
    [
        (None, [4, 4, 4, 4]),  # arrays of this host's CPU
        (False, [4, 4, 4, 4]),
        (True, [16]),
        (4, [4, 4, 4, 4]),
        (8, [8, 8]),
        (12, [8, 8]),  # of nearly equal size
        (16, [16]),
        (3, [4, 4, 4, 4]),  # a branch is never cut
    ],
)
def test_a_call_has_as_many_rows_as_were_asked_for(batched, rows):
    probe = tf.toy_probe()
    guidance = jg.chain(jg.cfg(2.0), jg.compose("other", 0.3), jg.sg(0.5))
    with jax.disable_jit():
        tf.sample(guidance, probe, probe, GRID, batched=batched)
    assert [seen.rows for seen in probe.calls] == rows


def test_conditions_of_another_structure_are_calls_of_their_own():
    """A prompt beside no prompt, and beside one of another length."""

    def told(x, t, cond):
        return x if cond is None else x * cond["words"].sum(1, keepdims=True)

    x, words = jnp.ones((2, 3)), jnp.ones((2, 4))
    conds = {"null": None, "negative": {"words": words[:, :2]}}
    guidance = jg.chain(jg.cfg(2.0), jg.negative(1.5))
    found = []
    for batched in (True, False):
        guided = jg.guide(told, guidance, batched=batched)
        options = dict(conds=conds)
        found.append(guided(x, 0.5, {"words": words}, guided.init(x), **options)[0])
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], 4 + (4 - 1) + 0.5 * (4 - 2))


def test_a_function_of_one_time_is_never_given_one_per_row():
    """On a host where each branch is a call of its own it would not be noticed."""
    rows = []

    def predict(x, t, cond):
        rows.append(len(x))
        return x * cond[:, None] + jnp.full((), t)

    x, cond = jnp.ones((2, 3)), jnp.ones(2)
    guidance = jg.chain(jg.cfg(2.0), jg.sg(0.5))
    guided = jg.guide(predict, guidance, batched=True)
    found, _ = guided(x, 0.5, cond, guided.init(x), conds={"null": 0 * cond})
    assert rows == [4, 2]  # raw and null; raw at a later time
    np.testing.assert_allclose(found, 1.5 + 1 + 0.5 * -0.01, rtol=1e-6)


@pytest.mark.parametrize("batched", ["no", 0, -3, 2.5])
def test_what_is_no_number_of_rows_is_refused(batched):
    with pytest.raises(InputError, match="guide: need batched True, False, None or a"):
        jg.guide(network, jg.cfg(2.0), batched=batched)
