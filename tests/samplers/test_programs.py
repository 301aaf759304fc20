"""Copies of the network in a program: at most one for every branch of a chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxguide as jg
from jaxguide.guidance import RAW, _plan as plan
from jaxguide.oracle import GaussianMixture
from jaxguide.samplers import adaptive, sweep
from tests import transforms as tf
from tests.contract.common import Probing, register, rest

FAST_COMPILE = True
CONDS = ("cond", "null", "negative", "other", "also")
DATA = GaussianMixture(
    means=np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]], np.float32),
    stds=np.array([0.5, 0.4, 0.3], np.float32),
    labels=(0, 1, 1),
)
GRID = np.array([1.0, 0.8, 0.6, 0.45, 0.2, 0.0])


def marked(x, t, cond, keep_blocks=None):
    """A network with one operation that nothing else in a program has."""
    share = 1.0 if keep_blocks is None else keep_blocks.sum().astype(x.dtype) / 10
    t, cond = (one.reshape(-1, 1, 1) for one in (t, cond))
    return lax.cbrt(2 + jnp.tanh(x + t) * share) * (1 + cond / 9)


def copies(function, *args):
    """How often the network is in the program of `function`."""

    def count(jaxpr):
        return sum(
            (eqn.primitive.name == "cbrt") + sum(map(count, inner(eqn.params)))
            for eqn in jaxpr.eqns
        )

    def inner(params):
        for leaf in jax.tree.leaves(
            list(params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(leaf, "eqns"):
                yield leaf
            elif hasattr(leaf, "jaxpr"):
                yield leaf.jaxpr

    return count(jax.make_jaxpr(function)(*args).jaxpr)


class Left(NamedTuple):
    steps: jax.Array


@register
class Stopping(Probing):
    """Pushes away from a branch of its own for so many steps, which the step counts."""

    gated = True

    def __init__(self, draw, steps):
        self.away, self.steps = jg.Branch(cond="negative", draw=draw), steps

    def init(self, x):
        return Left(jnp.int32(self.steps))

    def branches(self, network):
        return (self.away,)

    def gate(self, state):
        return state.steps > 0

    def apply(self, guided, state, here, *, live):
        if live:
            change = here[RAW] - here[self.away]
            guided = guided.plus(jnp.asarray(0.1), change)
        return guided, Left(state.steps - 1)


def staggered(count, draw=0):
    return [
        jg.contrast(
            0.2 + i / 100, jg.Branch(cond=CONDS[1 + i % 4], draw=draw + i),
            t_lo=i / 20, t_hi=0.5 + i / 20,
        )
        for i in range(count)
    ]  # fmt: skip


THREE = jg.chain(jg.cfg(2.0, t_hi=0.8), jg.sg_prev(1.0), jg.s2(0.3))
# (guidance, sampler, branches beyond the main one).
PROGRAMS = {
    "cfg": (jg.cfg(2.0), jg.euler(), 1),
    "interval": (jg.cfg(2.0, t_lo=0.2, t_hi=0.8), jg.euler(), 1),
    "last step": (jg.sg(0.5), jg.euler(), 1),
    "every second step": (jg.cfg_cache(2.0, every=2), jg.euler(), 1),
    "three": (THREE, jg.euler(), 2),
    "windows": (jg.chain(*staggered(6)), jg.euler(), 6),
    "one gate six times": (
        jg.chain(*map(jg.adaptive_guidance, (2.0,) * 6)), jg.euler(), 1
    ),
    "gates": (jg.chain(*(Stopping(i, i) for i in range(6))), jg.euler(), 6),
    "gates and windows": (
        jg.chain(*staggered(3, draw=9), *(Stopping(i, i) for i in range(3))),
        jg.euler(), 6,
    ),
    "repeats": (jg.cfg(2.0), jg.recurrent(jg.ddim(), 4), 1),
    "repeats of three": (THREE, jg.recurrent(jg.heun(), 4), 2),
    "two stages": (jg.cfg(2.0), jg.heun(), 1),
    "two stages, windows": (jg.chain(*staggered(6)), jg.dpmpp_sde(), 6),
}  # fmt: skip


def arguments(batch=2):
    cond = jnp.arange(batch, dtype=jnp.float32)
    return jnp.ones((batch, 2, 2)), {name: cond + i for i, name in enumerate(CONDS)}


@pytest.mark.parametrize("batched", [False, *rest(True)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_the_network_once_for_every_branch(name, batched):
    guidance, sampler, branches = PROGRAMS[name]
    x, conds = arguments()

    def sample(x):
        return jg.generate(
            jg.Network(marked, depth=10), x, conds["cond"], guidance=guidance,
            grid=jg.uniform(20), sampler=sampler, conds=conds, batched=batched,
            key=jax.random.key(0), sample_keys=jg.sample_keys(0, jnp.arange(len(x))),
        )  # fmt: skip

    found = copies(sample, x)
    assert found <= branches + 1
    if not batched:
        assert found == branches + 1  # each is there


def test_a_run_without_windows_is_one_scan_and_asks_nothing():
    x, conds = arguments()
    program = jax.make_jaxpr(
        lambda x: jg.generate(
            jg.Network(marked), x, conds["cond"], guidance=jg.cfg(2.0),
            grid=jg.uniform(5), sampler=jg.euler(), conds=conds, batched=False,
        )
    )(x)  # fmt: skip
    text = str(program)
    assert text.count("scan[") == 1 and "cond[" not in text


@pytest.mark.parametrize("vmapped", [False, True])
def test_a_sweep_of_windows_has_it_as_often(vmapped):
    x, conds = arguments()
    guidances = [jg.chain(*staggered(6))] * 2

    def sample(x):
        return sweep(
            jg.Network(marked), x, conds["cond"], guidances=guidances, conds=conds,
            grid=jg.uniform(20), sampler=jg.heun(), vmapped=vmapped, batched=False,
        )  # fmt: skip

    assert copies(sample, x) == 7


def test_a_guided_function_of_a_traced_time_has_it_as_often():
    x, conds = arguments()
    guided = jg.guide(marked, jg.chain(*staggered(6)), batched=False)

    def once(x, t):
        return guided(x, t, conds["cond"], guided.init(x), conds=conds)[0]

    assert copies(once, x, jnp.float32(0.5)) == 7


def test_an_adaptive_integration_has_it_as_often():
    x, conds = arguments()

    def sample(x):
        return adaptive.integrate(
            jg.Network(marked), x, conds["cond"], guidance=jg.chain(*staggered(3)),
            conds=conds, batched=False, per_sample=False,
        ).x  # fmt: skip

    assert copies(sample, x) == 4


def test_a_transform_that_sets_the_noise_in_a_window_serves_a_traced_time():
    """The pair has its noise inside the window, and that of the prediction outside."""
    x, conds = arguments()
    guided = jg.guide(
        marked, jg.chain(jg.cfgpp(0.5, t_hi=0.5), jg.negative(1.5)), batched=False
    )

    def pair(t):
        return guided.pair(x, t, conds["cond"], guided.init(x), conds=conds)[0]

    assert copies(pair, jnp.float32(0.5)) == 3
    run = jax.jit(pair)
    for t in (0.3, 0.8):
        found, want = run(jnp.float32(t)), pair(t)
        np.testing.assert_allclose(found.noise, want.noise, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.denoised, want.denoised, rtol=1e-5, atol=1e-6)


def test_mapped_over_windows_a_step_evaluates_what_any_of_them_needs():
    seen, label = [], jnp.zeros(2)

    def predict(x, t, label):
        jax.debug.callback(lambda one: seen.append(float(np.max(one))), label)
        return jnp.sin(x + label[:, None] + t[:, None])

    guidances = [jg.cfg(2.0, t_lo=0.4, t_hi=0.8), jg.cfg(3.0, t_lo=0.6, t_hi=0.9)]
    given = jg.Network(predict), jnp.ones((2, 3)), label
    sweep(
        *given, guidances=guidances, vmapped=True, conds={"null": label + 1},
        grid=jg.uniform(10), sampler=jg.euler(),
    )  # fmt: skip
    jax.effects_barrier()
    assert seen.count(0.0) == 10 and seen.count(1.0) == 5  # at 0.8, 0.7, 0.6, 0.5, 0.4


# Values: the program that all steps share, and one for each kind of step.


def in_both_forms(monkeypatch, function):
    """What a function of no arguments returns with and without a shared program."""
    results = []
    for form in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(plan, "share_program", lambda *_, form=form, **__: form)
            results.append(function())
    return results


def light(x, t, label):
    return jnp.sin(x * (1 + label[:, None] / 4) + t[:, None])


def sampled(guidance, x=None, network=None, **options):
    label = jnp.array([0, 1, 1])
    conds = {"null": label * 0 + 2, "negative": label * 0, "other": 1 - label}
    x = start() if x is None else x
    named = dict(grid=GRID, sampler=jg.euler(), batched=False) | options
    return jg.generate(
        network or jg.Network(light), x, label, guidance=guidance, conds=conds, **named,
    )  # fmt: skip


def changing(scale=2.0):
    """A gate, branches that come and go, and a state that goes on outside windows."""
    return jg.chain(
        jg.adaptive_guidance(scale, threshold=0.97, t_hi=0.9),
        jg.negative(0.5 + scale / 2, t_lo=0.3, t_hi=0.7),
        jg.sg_prev(0.4, t_hi=0.5),
    )


def start():
    return jax.random.normal(jax.random.key(3), (3, 2))


def gradient(scale, x):
    """Of a number that the samples make, and the number."""

    def loss(scale, x):
        return jnp.sum(sampled(changing(scale), x) ** 2)

    return jax.value_and_grad(loss, (0, 1))(scale, x)


def test_gradients_go_through_gates_and_windows(monkeypatch):
    shared, apart = in_both_forms(
        monkeypatch, lambda: jax.jit(lambda *args: gradient(*args))(2.0, start())
    )
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6),
        shared, apart,
    )  # fmt: skip
    plain = jnp.sum(sampled(None) ** 2)
    assert np.abs(shared[0] - plain) > 0.01 and np.abs(shared[1][0]) > 0.01


@pytest.mark.exhaustive
def test_so_do_gradients_of_a_batch_of_values():
    """A batch of gates turns their `cond` into a selection, which evaluates zeros."""
    scales = jnp.array([2.0, 1.4])
    _, (found, _) = jax.jit(jax.vmap(gradient, (0, None)))(scales, start())
    want = [gradient(scale, start())[1][0] for scale in (2.0, 1.4)]
    np.testing.assert_allclose(found, want, rtol=1e-4)
    near = [gradient(scale, start())[0] for scale in (2.01, 1.99)]
    np.testing.assert_allclose(found[0], (near[0] - near[1]) / 0.02, rtol=0.02)


@pytest.mark.exhaustive
def test_both_forms_give_the_same_samples_in_two_stages(monkeypatch):
    options = dict(sampler=jg.heun(), grid=jg.uniform(8), network=DATA.network())
    shared, apart = in_both_forms(monkeypatch, lambda: sampled(changing(), **options))
    np.testing.assert_allclose(shared, apart, atol=1e-6)


SORTS = (
    "s2", "apg", "sag", "cfgpp_window", "rectified_cfgpp", "cfg_cache", "linear_ag",
    "rcfg", "energy", "tfg",
)  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SORTS)
def test_both_forms_agree_and_evaluate_what_was_promised(monkeypatch, name):
    row = tf.BY_NAME[name]
    guidance = jg.chain(row.make(row.value), jg.negative(1.3, t_lo=0.3, t_hi=0.7))

    def run():
        main, weak = tf.toy_probe(), tf.toy_probe(0.9)
        grid = np.array([1.0, 0.8, 0.5, 0.3, 0.0])
        out = tf.sample(guidance, main, weak, grid, batched=False)
        cost = jg.cost(
            main.network(), guidance, grid, jg.euler(),
            networks={"weak": weak.network()},
        )  # fmt: skip
        assert main.evaluations() + weak.evaluations() == cost.nfe
        return out

    np.testing.assert_allclose(*in_both_forms(monkeypatch, run), rtol=2e-6, atol=2e-6)
