"""A stranger's sampler: a subclass of `Sampler` that writes only what it needs."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import Pair
from jaxguide.samplers import Sampler
from tests import transforms as tf

FAST_COMPILE = True
GRID = np.array([0.9, 0.6, 0.3, 0.0])


@dataclasses.dataclass(frozen=True)
class Plain(Sampler):
    """DDIM with every noise made smaller: two methods and a number."""

    keep: float = 1.0

    def coefficients(self, path, grid):
        node = path.node(grid[1:])
        return node.alpha, self.keep * node.sigma

    def step(self, x, memory, pair, c, fresh):
        assert memory == () and fresh is None
        return c[0] * pair.denoised + c[1] * pair.noise, memory


@dataclasses.dataclass(frozen=True)
class Twice(Plain):
    """Takes the second prediction for the whole step, which it takes two times."""

    repeats = 2
    stochastic = True

    def stages(self, grid):
        return np.full(len(grid) - 1, 4)

    def step(self, x, memory, pair, c, fresh):
        return super().step(x, memory, pair, c, None)

    def correct(self, x, first, second, c, fresh):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, first[:2], second[:2])
        return super().step(x, (), Pair(*mean), c, None)[0]

    def renoise(self, x, c, fresh):
        return x + 0.1 * fresh


def test_two_methods_are_a_sampler():
    guidance = jg.chain(jg.cfg(2.0), jg.sg_prev(0.5))
    main, weak = tf.toy_probe(), tf.toy_probe(0.9)
    out = tf.sample(guidance, main, weak, GRID, Plain())
    want = tf.sample(guidance, *(tf.toy_probe(),) * 2, GRID, jg.ddim())
    np.testing.assert_allclose(out, want, rtol=1e-6)
    traces = main.traces
    tf.sample(guidance, main, weak, GRID, Plain())  # equal, so the same program
    assert main.traces == traces
    tf.sample(guidance, main, weak, GRID, Plain(0.5))
    assert main.traces > traces


@pytest.mark.parametrize("sampler", [Plain(), Twice()])
def test_its_cost_is_a_promise_too(sampler):
    main, weak = tf.toy_probe(), tf.toy_probe(0.9)
    guidance = jg.cfg(2.0, t_hi=0.5)
    out = tf.sample(guidance, main, weak, GRID, sampler)
    cost = jg.cost(main.network(), guidance, GRID, sampler)
    assert main.evaluations() == cost.nfe == 4 * (4 if sampler.repeats == 2 else 1)
    assert np.isfinite(out).all()


def test_what_it_does_not_write_is_said_where_it_is_asked_for():
    with pytest.raises(ValueError, match="Plain has no corrector"):
        Plain().correct(None, None, None, None, None)
    with pytest.raises(ValueError, match="Plain takes every step once"):
        Plain().renoise(None, None, None)
