"""Promise 2: branches are declared, then evaluated once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import Change
from tests import transforms as tf
from tests.contract.common import (
    GRID,
    Probing,
    eager,
    few_rows,
    few_steps,
    register,
)

FAST_COMPILE = True


# 2. Branches are declared, then evaluated once.


@few_rows
def test_equal_branches_are_evaluated_once(row):
    if row.stochastic or row.own:
        pytest.skip("its draws or numbers are its own")
    _, once, weak_once = eager(row.make(row.value), grid=few_steps(row))
    twin = jg.chain(row.make(row.value), row.make(0.5 * row.value + 0.3))
    _, twice, weak_twice = eager(twin, grid=few_steps(row))
    assert once.evaluations() == twice.evaluations()
    assert weak_once.evaluations() == weak_twice.evaluations()


def test_two_cfgs_cost_one_null_call():
    _, probe, _ = eager(jg.chain(jg.cfg(2.0), jg.cfg(3.0)))
    assert probe.evaluations() == 2 * (len(GRID) - 1)
    null = sum(int(seen.label[0]) == 3 for seen in probe.calls)
    assert null == len(GRID) - 1


@few_rows
def test_batched_equals_sequential(row):
    noise = jax.random.normal(jax.random.key(5), (tf.BATCH, *tf.SHAPE))
    options = dict(noise=noise, seed=5, grid=few_steps(row))
    one, calls, weak = eager(row.make(row.value), batched=False, **options)
    two, merged, weak_merged = eager(row.make(row.value), batched=True, **options)
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert calls.evaluations() == merged.evaluations()
    assert weak.evaluations() == weak_merged.evaluations()
    assert len(merged.calls) <= len(calls.calls)


def test_batched_runs_input_branches_in_one_forward_and_dropped_blocks_alone():
    guidance = jg.chain(jg.cfg(2.0), jg.sg(1.0), jg.s2(0.5))
    _, probe, _ = eager(guidance, batched=True, grid=np.array([0.6, 0.5]))
    shapes = sorted((seen.rows, seen.keep is not None) for seen in probe.calls)
    assert shapes == [(tf.BATCH, True), (3 * tf.BATCH, False)]


@dataclasses.dataclass(frozen=True)
class HalfWay(Change):
    """An input made from a first-round prediction."""

    second = True

    def x(self, here):
        return here.step.x - 0.25 * here[jg.Branch(cond="null")]


class SecondRound(Probing):
    """guided + raw - (the network at an input made from its own prediction)."""

    null = jg.Branch(cond="null")
    again = jg.Branch(change=HalfWay())

    def branches(self, network):
        return (self.null, self.again)

    def apply(self, guided, state, here, *, live):
        moved = guided.prediction + here[jg.Branch()] - here[self.again]
        return guided._replace(prediction=moved), state


class Energy(Probing):
    """guided + gradient of the prediction's energy with respect to the state."""

    branch = jg.Branch(differentiable=True)

    def branches(self, network):
        return (self.branch,)

    def apply(self, guided, state, here, *, live):
        function = here.function(self.branch)
        push = jax.grad(lambda x: (function(x) ** 2).sum())(here.step.x)
        return guided._replace(prediction=guided.prediction + push), state


register(SecondRound)
register(Energy)


@pytest.mark.parametrize("batched", [False, True])
def test_a_second_round_branch_sees_the_first_round(batched):
    grid = np.array([0.6, 0.5])
    out, probe, weak = eager(SecondRound(), grid=grid, batched=batched)
    x = tf.start() * np.float32(0.6)
    at = lambda x, label: tf.toy(probe.weights, x, jnp.full(tf.BATCH, 0.6), label)  # noqa: E731
    label = tf.labels()
    raw = at(x, label["cond"])
    again = at(x - 0.25 * at(x, label["null"]), label["cond"])
    np.testing.assert_allclose(out, x - 0.1 * (2 * raw - again), rtol=1e-5, atol=1e-6)
    assert probe.evaluations() == 3
    promise = jg.cost(probe.network(), SecondRound(), grid, jg.euler())
    assert promise.nfe == 3


def test_an_energy_differentiates_through_the_network_and_is_counted():
    grid = np.array([0.6, 0.5])
    out, probe, _ = eager(Energy(), grid=grid)
    x = tf.start() * np.float32(0.6)
    label = tf.labels()["cond"]
    net = lambda x: tf.toy(probe.weights, x, jnp.full(tf.BATCH, 0.6), label)  # noqa: E731
    h = 1e-3
    push = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = jnp.zeros_like(x).at[index].set(h)
        push[index] = ((net(x + step) ** 2).sum() - (net(x - step) ** 2).sum()) / (
            2 * h
        )
    np.testing.assert_allclose(out, x - 0.1 * (net(x) + push), rtol=1e-3, atol=1e-3)
    assert probe.evaluations() == 2
    promise = jg.cost(probe.network(), Energy(), grid, jg.euler())
    assert (promise.nfe, promise.flops) == (2, 4 * tf.FLOPS)
