"""The model of compiled programs: FLOPs and trips of a loop, counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import hlo, roofline

WIDTH, ROWS, TRIPS = 32, 8, 5


@pytest.fixture(scope="module")
def module():
    """A loop of products with one of a stack of matrices each."""

    def run(x, stack):
        return lax.scan(lambda x, matrix: (jnp.tanh(x @ matrix), None), x, stack)[0]

    given = jnp.ones((ROWS, WIDTH)), jnp.ones((TRIPS, WIDTH, WIDTH))
    return hlo.Module(jax.jit(run).lower(*given).compile().as_text())


def test_flops_of_a_loop_are_counted_as_often_as_it_runs(module):
    only_flops = roofline.Limits({"f32": 1.0, "bf16": 1.0}, float("inf"))
    time = roofline.estimate(module, only_flops)
    assert time.total == TRIPS * 2 * ROWS * WIDTH * WIDTH


def test_bytes_of_a_stack_are_those_of_its_slices(module):
    """Far fewer than the whole stack in every trip; at least each matrix once."""
    time = roofline.estimate(module, roofline.Limits({"f32": 1.0, "bf16": 1.0}, 1.0))
    stack = TRIPS * WIDTH * WIDTH * 4
    assert stack <= time.moved < TRIPS * stack


def test_what_is_inside_loops_is_known(module):
    inside = module.inside_loops()
    assert inside and module.entry not in inside
    assert not module.computations[module.entry] == []
