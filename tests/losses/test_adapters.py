"""Adapters beside a frozen network, and the guided trajectories they learn from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import guidance, losses, models, oracle, paths, samplers, train

FAST_COMPILE = True
MODEL = models.DiTConfig(4, 1, 2, 8, 2, 2, num_classes=3)


@pytest.fixture(scope="module")
def params():
    fresh = jax.jit(models.init, static_argnums=0)(MODEL, jax.random.key(0))
    rng = np.random.default_rng(0)
    # A fresh network returns zeros and hides its blocks: let it say something.
    return jax.tree.map(
        lambda p: np.asarray(p + 0.3 * rng.normal(size=p.shape), np.float32), fresh
    )


@pytest.fixture(scope="module")
def adapters():
    return jax.jit(models.init_adapters, static_argnums=0)(MODEL, jax.random.key(1))


def some_states():
    x = jax.random.normal(jax.random.key(2), (3, 4, 4, 1))
    return losses.GuidedStates(
        x,
        jnp.array([0.2, 0.5, 0.9]),
        jnp.array([0, 2, 1], jnp.int32),
        jnp.array([1.0, 2.0, 5.0]),
        jnp.sin(x),
    )


def adapted(params, adapters, x, t, label, scale):
    return models.apply_adapted(MODEL, params, adapters, x, t, label, scale=scale)


@pytest.mark.exhaustive
def test_fresh_adapters_leave_the_network_as_it_is(params, adapters):
    states = some_states()

    @jax.jit
    def both(params, adapters):
        plain = models.apply(MODEL, params, states.x, states.t, states.label)
        return plain, adapted(params, adapters, *states[:4])

    plain, with_them = both(params, adapters)
    np.testing.assert_array_equal(plain, with_them)
    assert float(jnp.abs(plain).max()) > 0.1


@pytest.mark.exhaustive  # a training
def test_adapters_alone_are_trained_and_they_know_time_class_and_scale(
    params, adapters
):
    states = some_states()

    @jax.jit
    def run(params, adapters):
        def total(params, adapters):
            own = functools.partial(adapted, params, adapters)
            return losses.adapter_distillation(own, states).sum()

        rate = 0.02
        frozen, slope = jax.grad(total, argnums=(0, 1))(params, adapters)
        moved = jax.tree.map(lambda p, g: p - rate * g, adapters, slope)
        one = [jnp.ones(3), jnp.full(3, 0.4), jnp.zeros(3, jnp.int32)]
        shown = [
            adapted(params, moved, states.x, one[1], one[2], one[0]),
            adapted(params, moved, states.x, one[1] + 0.3, one[2], one[0]),
            adapted(params, moved, states.x, one[1], one[2] + 1, one[0]),
            adapted(params, moved, states.x, one[1], one[2], one[0] + 1),
        ]
        plain = [
            models.apply(MODEL, params, states.x, one[1] + a, one[2] + b)
            for a, b in ((0.0, 0), (0.3, 0), (0.0, 1), (0.0, 0))
        ]
        offsets = [a - b for a, b in zip(shown, plain, strict=True)]
        return frozen, slope, total(params, adapters), total(params, moved), offsets

    frozen, slope, before, after, offsets = run(params, adapters)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(frozen))
    assert np.any(slope["out"]) and np.any(slope["out_bias"])
    assert float(after) < float(before)
    for other in offsets[1:]:
        assert float(jnp.abs(other - offsets[0]).max()) > 1e-6


def test_trajectories_are_those_of_the_guided_sampler():
    mixture = oracle.GaussianMixture(
        jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.array([0.3, 0.4]), labels=(0, 1)
    )
    network = mixture.network("velocity", paths.Linear())
    noise = jax.random.normal(jax.random.key(4), (4, 2))
    label = jnp.array([0, 1, 0, 1], jnp.int32)
    scale = jnp.array([1.0, 1.5, 2.0, 3.0])
    grid = [1.0, 0.6, 0.3, 0.0]
    states = train.guided_trajectories(
        network, noise, label, scale, grid=grid, null_label=2
    )
    assert states.x.shape == states.prediction.shape == (12, 2)
    np.testing.assert_allclose(states.t, np.repeat(np.float32(grid[:3]), 4))
    own = network.predict(states.x, states.t, states.label)
    none = network.predict(states.x, states.t, jnp.full(12, 2, jnp.int32))
    guided = none + states.scale[:, None] * (own - none)
    np.testing.assert_allclose(states.prediction, guided, atol=2e-5)
    end = states.x[-4:] - 0.3 * states.prediction[-4:]
    sampled = samplers.generate(
        network,
        noise,
        label,
        grid=grid,
        sampler=samplers.euler(),
        guidance=guidance.cfg(scale),
        conds={"null": jnp.full(4, 2, jnp.int32)},
    )
    np.testing.assert_allclose(end, sampled, atol=1e-5)
