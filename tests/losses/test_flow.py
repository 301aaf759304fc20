"""The flow-matching loss against what it must be for exact and for bad networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import losses, paths

FAST_COMPILE = True
PATHS = [paths.Linear(), paths.GVP(), paths.VP()]


def one_point(count=4000):
    """A batch whose images are all the same: its best predictions are closed forms."""
    x0 = jnp.broadcast_to(jnp.array([[[0.3], [-0.7]]]), (count, 1, 2, 1))
    return x0, jnp.zeros(count, jnp.int32)


@pytest.mark.parametrize("kind", ["velocity", "denoised", "noise"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_the_exact_network_of_one_image_has_no_loss(path, kind, key):
    x0, label = one_point(200)

    def exact(x, t, label):
        return paths.convert(x0, x, path.node(t), "denoised", kind)

    loss = losses.flow_matching(
        exact, (x0, label), key, path=path, kind=kind, null_label=1
    )
    assert loss.shape == (200,)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 0, atol=1e-4)


def test_a_network_of_zeros_pays_the_variance_of_the_velocity(key):
    x0, label = one_point()
    loss = losses.flow_matching(
        lambda x, t, label: jnp.zeros_like(x),
        (x0, label),
        key,
        path=paths.Linear(),
        null_label=1,
    )
    expected = 1 + (0.3**2 + 0.7**2) / 2  # E (noise - x0)^2
    np.testing.assert_allclose(loss.mean(), expected, rtol=0.05)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_labels_are_dropped_at_the_given_rate(rate, key):
    seen = []

    def watching(x, t, label):
        seen.append(label)
        return x

    x0, _ = one_point()
    label = jnp.full(len(x0), 3, jnp.int32)
    losses.flow_matching(
        watching,
        (x0, label),
        key,
        path=paths.Linear(),
        label_drop=rate,
        null_label=7,
    )
    assert set(np.unique(seen[0]).tolist()) <= {3, 7}
    np.testing.assert_allclose(np.mean(seen[0] == 7), rate, atol=0.03)


def test_the_loss_is_a_function_of_the_key(key):
    x0, label = one_point(8)
    loss = functools.partial(
        losses.flow_matching,
        lambda x, t, label: x,
        (x0, label),
        path=paths.Linear(),
        null_label=1,
    )
    np.testing.assert_array_equal(loss(key), loss(key))
    assert not np.array_equal(loss(key), loss(jax.random.key(1)))


def test_uniform_times_are_uniform(key):
    t = np.sort(np.asarray(losses.uniform_t(losses.draws(key, 4000))))
    np.testing.assert_allclose(t, np.linspace(0, 1, 4000), atol=0.03)
    assert t[0] > 0 and t[-1] < 1


def test_logit_normal_times_have_a_normal_logit(key):
    t = np.asarray(losses.logit_normal_t(0.5, 0.8)(losses.draws(key, 8000)), np.float64)
    logit = np.log(t / (1 - t))
    np.testing.assert_allclose([logit.mean(), logit.std()], [0.5, 0.8], atol=0.03)


def test_wrong_numbers_are_named(key):
    x0, label = one_point(2)
    loss = functools.partial(
        losses.flow_matching,
        lambda x, t, label: x,
        (x0, label),
        key,
        path=paths.Linear(),
        null_label=1,
    )
    with pytest.raises(ValueError, match="need 0 <= label_drop <= 1, got label_drop=2"):
        loss(label_drop=2)
    with pytest.raises(ValueError, match="got kind='velocty'"):
        loss(kind="velocty")
    with pytest.raises(ValueError, match="need std > 0, got std=0"):
        losses.logit_normal_t(std=0)
