"""Moments that come in parts are those of all at once; distances of Gaussians."""

import numpy as np
import pytest
from scipy import linalg

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.evaluate import frechet
from jaxguide.evaluate.frechet import Gaussian, frechet_distance
from jaxguide.evaluate.reference import read_statistics
from jaxguide.evaluate.statistics import Moments, merge, merge_all, without
from tests.evaluate import fidelity, toy_network


def points(count=200, size=7, seed=0, shift=1e3):
    """Correlated, and far from the origin: where naive sums of squares fail."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(size, size))
    return rng.normal(size=(count, size)) @ mixing + shift


def check_same(found, x, rtol=1e-12):
    assert found.count == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=rtol)
    np.testing.assert_allclose(
        found.covariance(), np.cov(x, rowvar=False), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("size", [1, 3, 64, 200])
def test_batches_of_any_size_give_the_moments_of_all(size):
    x = points()
    found = Moments.empty(x.shape[1])
    for first in range(0, len(x), size):
        found = found.add(x[first : first + size])
    check_same(found, x)


def test_float32_features_are_summed_in_float64():
    x = points(shift=100.0).astype(np.float32)
    found = merge_all(Moments.of(part) for part in np.split(x, 5))
    assert found.mean.dtype == found.scatter.dtype == np.float64
    check_same(found, x.astype(np.float64))


def test_merging_is_associative_and_does_not_mind_the_order():
    x = points()
    a, b, c = (Moments.of(part) for part in (x[:3], x[3:90], x[90:]))
    for whole in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(c, merge(b, a))):
        check_same(whole, x)
    check_same(merge(Moments.empty(7), merge(a, Moments.empty(7))), x[:3])


def test_taking_out_a_part_leaves_the_others():
    x = points()
    check_same(
        without(Moments.of(x), Moments.of(x[40:90])), np.delete(x, slice(40, 90), 0)
    )


def test_moments_come_back_from_the_disk_bit_for_bit(tmp_path):
    saved = Moments.of(points())
    saved.save(tmp_path / "moments.npz")
    found = Moments.load(tmp_path / "moments.npz", count=saved.count)
    assert found.count == saved.count
    np.testing.assert_array_equal(found.mean, saved.mean)
    np.testing.assert_array_equal(found.scatter, saved.scatter)
    assert [file.name for file in tmp_path.iterdir()] == ["moments.npz"]


def test_one_vector_has_no_covariance():
    with pytest.raises(ValueError, match="need more than 1 vectors, got count=1"):
        Moments.of(points(1)).covariance()


def gaussian(count, seed, size=24):
    return Gaussian.of(Moments.of(points(count, size, seed, shift=seed)))


def by_sqrtm(a, b):
    """The textbook formula."""
    root = linalg.sqrtm(a.covariance @ b.covariance)
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return np.square(a.mean - b.mean).sum() + traces - 2 * np.trace(root).real


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_is_that_of_scipy(seed):
    a, b = gaussian(300, seed), gaussian(200, seed + 10)
    found = frechet.frechet_distance(a, b)
    np.testing.assert_allclose(found, by_sqrtm(a, b), rtol=1e-9)
    kept = frechet.frechet_distance(a, b, factor_b=frechet.factor(b.covariance))
    assert kept == found
    np.testing.assert_allclose(frechet.frechet_distance(b, a), found, rtol=1e-9)


def test_frechet_distance_of_commuting_gaussians_is_that_of_their_deviations():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    deviations = np.arange(1.0, 6.0), np.array([2.0, 0, 0, 7, 5])
    a, b = (
        Gaussian(np.full(5, at), turn * deviation**2 @ turn.T)
        for at, deviation in enumerate(deviations)
    )
    exact = 5 + np.square(deviations[0] - deviations[1]).sum()
    np.testing.assert_allclose(frechet.frechet_distance(a, b), exact, rtol=1e-12)


def test_fewer_images_than_features_are_no_obstacle():
    # Covariances of rank 9 in 24 dimensions, known by their factors.
    x, y = (points(10, 24, seed, shift=seed) for seed in (0, 1))
    factors = [(p - p.mean(0)) / 3 for p in (x, y)]
    overlap = linalg.svdvals(factors[0] @ factors[1].T).sum()
    exact = np.square(x.mean(0) - y.mean(0)).sum() - 2 * overlap
    exact += sum(np.square(f).sum() for f in factors)
    a, b = (Gaussian.of(Moments.of(p)) for p in (x, y))
    np.testing.assert_allclose(frechet.frechet_distance(a, b), exact, rtol=1e-9)
    assert abs(frechet.frechet_distance(a, a)) < 1e-9 * np.trace(a.covariance)


def test_the_order_of_images_does_not_matter():
    x, y = points(60, 5, 0), points(60, 5, 1)
    shuffled = np.random.default_rng(0).permutation(x)
    distances = [
        frechet.frechet_distance(*(Gaussian.of(Moments.of(p)) for p in pair))
        for pair in ((x, y), (shuffled, y))
    ]
    np.testing.assert_allclose(*distances, rtol=1e-9)


def test_frechet_distance_is_torch_fidelitys():
    metric = fidelity.module("metric_fid")
    a, b = gaussian(400, 3), gaussian(300, 4)
    theirs = [dict(mu=one.mean, sigma=one.covariance) for one in (a, b)]
    theirs = metric.fid_statistics_to_metric(*theirs, verbose=False)
    np.testing.assert_allclose(
        frechet.frechet_distance(a, b), theirs["frechet_inception_distance"], rtol=1e-6
    )


def test_features_of_two_networks_are_refused():
    with pytest.raises(ValueError, match=r"need features of one size, got a=\(24,\)"):
        frechet.frechet_distance(gaussian(99, 0), gaussian(99, 0, size=8))


def written(folder, **fields):
    given = dict(mu=np.zeros(5), sigma=np.eye(5)) | fields
    np.savez(folder / "stats.npz", **given)
    return folder / "stats.npz"


BAD = {
    "nan_mean": (dict(mu=np.full(5, np.nan)), "need a finite mean and covariance"),
    "inf_sigma": (dict(sigma=np.diag([1, 1, np.inf, 1, 1])), "got NaN or infinity"),
    "negative": (dict(sigma=-np.eye(5)), "whose eigenvalues are >= 0, got one with -1"),
    "mixed": (dict(sigma=np.diag([1, 1, 1, 1, -0.5])), "got one with -0.5 beside 1"),
    "lopsided": (dict(sigma=np.eye(5) + np.eye(5, k=1)), "need a symmetric covariance"),
    "flat": (dict(sigma=np.ones(5)), r"need mu \[5\] and sigma \[5, 5\]"),
    "text": (dict(mu=np.array(list("abcde"))), "need numbers in 'mu', got <U1"),
    "count": (dict(count=-3), "need a number of images in 'count'"),
    "no_sigma_s": (dict(mu_s=np.zeros(3)), "need the fields"),
    "other_s": (dict(mu_s=np.zeros(3), sigma_s=np.eye(2)), r"need mu_s \[D\]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_statistics_that_are_none_are_refused_in_one_line(tmp_path, kind):
    fields, words = BAD[kind]
    with pytest.raises(InputError, match=words) as caught:
        read_statistics(written(tmp_path, **fields), toy_network.network())
    assert "stats.npz" in str(caught.value) and "\n" not in str(caught.value)
    finite = kind not in ("nan_mean", "inf_sigma")
    assert isinstance(caught.value, NonFiniteError) != finite


def test_a_distance_of_what_is_no_gaussian_is_refused():
    right = Gaussian(np.zeros(5), np.eye(5))
    lost = right._replace(mean=np.full(5, np.nan))
    for wrong in (right._replace(covariance=-np.eye(5)), lost):
        for pair in ((right, wrong), (wrong, right)):
            with pytest.raises(InputError, match="frechet_distance: need a"):
                frechet_distance(*pair)


def test_a_covariance_that_was_kept_in_float32_is_one(tmp_path):
    rows = np.random.default_rng(0).standard_normal((3, 5))  # of rank 2
    sigma = np.cov(rows, rowvar=False).astype(np.float32)
    found = read_statistics(written(tmp_path, sigma=sigma), toy_network.network())
    distance = frechet_distance(found.pool, found.pool)
    np.testing.assert_allclose(distance, 0, atol=1e-6)
