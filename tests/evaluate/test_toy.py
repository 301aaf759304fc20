"""Measures of points of known distributions, against exact samples of the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxguide.evaluate import distances, toy
from jaxguide.oracle import GaussianMixture

FAST_COMPILE = True


def mixture(size):
    means = 20 * np.eye(6, size, dtype=np.float32)
    stds = np.array([1, 0.5, 2, 1, 1, 1], np.float32)
    return GaussianMixture(jnp.asarray(means), jnp.asarray(stds), (0, 0, 1, 1, 2, 2))


@pytest.mark.parametrize("size", [6, pytest.param(40, marks=pytest.mark.exhaustive)])
def test_exact_samples_are_no_outliers_and_reach_every_component(size):
    known = toy.Mixture(mixture(size))
    label = np.arange(900) % 3
    points = known.mixture.sample(jax.random.key(0), jnp.asarray(label))
    places = known.place(points, label)
    assert toy.outlier_rate(places) < 3e-3
    assert places.cells == 6 and toy.mode_coverage(places, least=100) == 1
    assert toy.outlier_rate(known.place(points, (label + 1) % 3)) == 1
    null = np.full(900, 3)
    assert toy.outlier_rate(known.place(points, null)) < 3e-3


@pytest.mark.parametrize("size", [6, 100])
def test_the_radius_is_the_quantile_of_chi(size):
    radius = toy.Mixture(mixture(size)).radius
    wanted = stats.chi.ppf(stats.norm.cdf(4.0), size)
    np.testing.assert_allclose(radius, wanted, rtol=2e-2)


def test_lost_modes_and_outliers_are_counted():
    known = toy.Mixture(mixture(6))
    means = np.asarray(known.mixture.means)
    points = np.repeat(means[[0, 2, 3]], 10, axis=0)  # one mode of class 0 is lost
    label = np.repeat([0, 1, 1], 10)
    points[0] += 100
    places = known.place(points, label)
    np.testing.assert_allclose(toy.outlier_rate(places), 1 / 30)
    assert places.cells == 4 and toy.mode_coverage(places) == 3 / 4
    assert toy.mode_coverage(places, least=10) == 2 / 4


def test_sliced_wasserstein_in_one_dimension_is_that_of_scipy():
    rng = np.random.default_rng(0)
    # Steps of both sets meet nowhere but at the end.
    x, y = rng.normal(size=35), 2 * rng.normal(size=24) + 1
    fine = 35 * 24
    exact = np.sort(np.repeat(x, 24)), np.sort(np.repeat(y, 35))
    wanted = np.sqrt(np.square(exact[0] - exact[1]).sum() / fine)
    found = distances.sliced_wasserstein(x[:, None], y[:, None], projections=3)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_the_root_of_the_size():
    x = np.random.default_rng(0).normal(size=(200, 4, 2))
    found = distances.sliced_wasserstein(x, x + 0.5, projections=5000)
    np.testing.assert_allclose(found, 0.5, rtol=0.04)  # 0.5 sqrt(8) / sqrt(8)
    assert distances.sliced_wasserstein(x, x[::-1]) == 0


def test_sliced_wasserstein_needs_points_of_one_size():
    with pytest.raises(ValueError, match="need points of one size in each set"):
        distances.sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="need points of one size in each set"):
        distances.sliced_wasserstein(np.zeros((0, 2)), np.zeros((3, 2)))


def test_distances_shrink_as_samples_come_from_the_oracle():
    known = mixture(6)
    label = jnp.asarray(np.arange(900) % 3)
    x, y = (known.sample(jax.random.key(seed), label) for seed in (0, 1))
    for distance in (toy.energy_distance, toy.sliced_wasserstein):
        assert distance(x, y) < 0.1 * distance(0.5 * x, y)
