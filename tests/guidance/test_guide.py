"""`guide`: one line around a function of your own, equal to `generate`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests.contract.common import rest

FAST_COMPILE = True
DATA = GaussianMixture(
    means=np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]], np.float32),
    stds=np.array([0.5, 0.4, 0.3], np.float32),
    labels=(0, 1, 1),
    blocks=(0.1, 0.2, 0.3, 0.4),
)
LABEL = np.array([0, 1, 1], np.int32)
NULL = np.full(3, DATA.num_classes, np.int32)
X = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)


def predict(kind="velocity"):
    return lambda x, t, label, **taps: DATA.predict(
        kind, paths.Linear(), x, t, label, **taps
    )


def reversed_time(kind):
    """The same model as SiT tells time: 1 is data."""
    sign = -1 if kind == "velocity" else 1
    return lambda x, t, label, **taps: sign * predict(kind)(x, 1 - t, label, **taps)


def once(guided, t, **options):
    return guided(X, t, LABEL, guided.init(X), conds={"null": NULL}, **options)[0]


def counting(function):
    """The function, and the list of labels it was really evaluated with."""
    seen = []

    def watched(x, t, label, **taps):
        jax.debug.callback(lambda y: seen.append(int(y)), label[0])
        return function(x, t, label, **taps)

    return watched, seen


@pytest.mark.parametrize("kind", paths.KINDS)
def test_every_kind_gives_the_same_guided_velocity(kind):
    want = once(jg.guide(predict(), jg.cfg(3.0)), 0.6)
    found = once(jg.guide(predict(kind), jg.cfg(3.0), kind=kind), 0.6)
    node = jax.tree.map(jnp.float32, paths.Linear().node(0.6))
    found = paths.convert(found, jnp.asarray(X), node, kind, "velocity")
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", paths.KINDS)
def test_data_time_is_noise_time_reversed(kind):
    chain = jg.chain(jg.cfg(3.0, t_lo=0.5), jg.sg(0.5, shift=0.1))
    want = once(jg.guide(predict(kind), chain, kind=kind), 0.75)
    mirrored = jg.guide(reversed_time(kind), chain, kind=kind, time="data")
    sign = -1 if kind == "velocity" else 1
    np.testing.assert_allclose(once(mirrored, 0.25), sign * want, rtol=1e-5, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("batched", [True, *rest(False)])
def test_a_scan_of_it_equals_generate(batched):
    chain = jg.chain(
        jg.cfg(2.0, t_lo=0.2, t_hi=0.9), jg.sg_prev(0.7), jg.s2(0.5, drop=0.3)
    )
    grid, key = jg.uniform(10), jax.random.key(5)
    guided = jg.guide(predict(), chain, depth=4, batched=batched)

    @jax.jit
    def mine(guided, x):
        def step(carry, at):
            x, state = carry
            velocity, state = guided(
                x, at[0], LABEL, state, conds={"null": NULL}, key=key
            )
            return (x + (at[1] - at[0]) * velocity, state), None

        times = jnp.stack([grid[:-1], grid[1:]], axis=1).astype(jnp.float32)
        return jax.lax.scan(step, (x, guided.init(x)), times)[0][0]

    options = dict(grid=grid, sampler=jg.euler(), guidance=chain, key=key)
    conds = {"null": jnp.asarray(NULL)}
    want = jg.generate(DATA.network(), jnp.asarray(X), LABEL, conds=conds, **options)
    np.testing.assert_allclose(mine(guided, X), want, rtol=2e-5, atol=2e-5)


def test_pair_renoises_to_the_same_step():
    guided = jg.guide(predict(), jg.cfg(2.0))
    state, conds = guided.init(X), {"null": NULL}
    velocity, _ = guided(X, 0.5, LABEL, state, conds=conds)
    pair, after = guided.pair(X, 0.5, LABEL, state, conds=conds)
    np.testing.assert_allclose(pair.noise - pair.denoised, velocity, atol=1e-5)
    np.testing.assert_allclose(0.5 * (pair.denoised + pair.noise), X, atol=1e-5)
    assert int(after.taken) == 1


@pytest.mark.parametrize("t", [0.2, 0.5, 0.79, 0.8, 0.95])
def test_outside_its_window_a_branch_is_not_evaluated_under_jit_either(t):
    watched, seen = counting(predict())
    guided = jg.guide(watched, jg.cfg(3.0, t_lo=0.2, t_hi=0.8))
    host = once(guided, t)
    jax.effects_barrier()
    on_host = sorted(seen)
    seen.clear()
    traced = jax.jit(lambda t: once(guided, t))(jnp.float32(t))
    jax.effects_barrier()
    assert on_host == sorted(seen) == ([0, 2] if 0.2 <= t < 0.8 else [0])
    np.testing.assert_allclose(traced, host, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("times", [0.5, np.full(3, 0.5, np.float32)])
def test_a_neutral_number_costs_nothing_at_a_traced_time_either(times):
    watched, seen = counting(predict())
    guided = jg.guide(watched, jg.cfg(1.0), batched=False)
    jax.jit(lambda t: once(guided, t))(jnp.asarray(times, jnp.float32))
    jax.effects_barrier()
    assert seen == [0]


def test_times_of_a_batch_are_judged_one_by_one():
    guided = jg.guide(predict(), jg.cfg(3.0, t_lo=0.2, t_hi=0.8), batched=False)
    times = np.array([0.1, 0.5, 0.9], np.float32)
    found = once(guided, jnp.asarray(times))
    alone = [once(guided, float(t))[i] for i, t in enumerate(times)]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_as_an_argument_of_jit_another_scale_does_not_compile_again():
    traces = []

    def watched(*args):
        traces.append(None)
        return predict()(*args)

    run = jax.jit(lambda guided, t: once(guided, t))
    one = run(jg.guide(watched, jg.cfg(2.0)), 0.5)
    count = len(traces)
    two = run(jg.guide(watched, jg.cfg(5.0)), 0.5)
    assert len(traces) == count
    assert np.abs(one - two).max() > 1e-3


def test_other_networks_share_its_conventions():
    chain = jg.autoguidance(2.0)
    weak = {"weak": reversed_time("velocity")}
    guided = jg.guide(
        reversed_time("velocity"), chain, time="data", networks=weak, batched=False
    )
    plain = reversed_time("velocity")(X, 0.3, LABEL)
    np.testing.assert_allclose(once(guided, 0.3), plain, rtol=1e-5, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Coupled(jg.Transform):
    """Sets the noise for the sampler, as CFG++ does."""

    def change(self, guided, here):
        return guided._replace(noise=jnp.full_like(here.step.x, 7.0))


jax.tree_util.register_dataclass(Coupled, data_fields=[], meta_fields=[])


def test_a_transform_that_couples_to_the_sampler_needs_pair():
    guided = jg.guide(predict(), Coupled())
    with pytest.raises(ValueError, match=r"Use \.pair"):
        once(guided, 0.5)
    pair, _ = guided.pair(X, 0.5, LABEL, guided.init(X))
    np.testing.assert_array_equal(pair.noise, np.full_like(X, 7.0))


def test_what_is_missing_is_named():
    guided = jg.guide(predict(), jg.cfg(2.0))
    state = guided.init(X)
    with pytest.raises(ValueError, match="need a condition named 'null'"):
        guided(X, 0.5, LABEL, state)
    with pytest.raises(ValueError, match="need a network named 'weak'"):
        once(jg.guide(predict(), jg.autoguidance(2.0)), 0.5)
    with pytest.raises(ValueError, match="need a PRNG key"):
        once(jg.guide(predict(), jg.s2(1.0), depth=4), 0.5)
    with pytest.raises(ValueError, match="a network with blocks to drop"):
        once(jg.guide(predict(), jg.s2(1.0)), 0.5, key=jax.random.key(0))
    with pytest.raises(ValueError, match="need 1 states, got 0"):
        guided(X, 0.5, LABEL, state._replace(parts=()), conds={"null": NULL})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="need time in"):
        jg.guide(predict(), jg.cfg(2.0), time="steps")
    with pytest.raises(ValueError, match="need kind in"):
        jg.guide(predict(), jg.cfg(2.0), kind="v")
