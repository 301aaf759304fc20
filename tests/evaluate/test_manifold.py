"""Precision, recall, density and coverage against slow loops and torch-fidelity."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.evaluate import manifold
from jaxguide.evaluate.manifold import Balls, squared, squared_half
from jaxguide.evaluate.protocols import ADM
from tests.evaluate import fidelity

FAST_COMPILE = True


def clouds(samples=60, reals=48, size=5, scale=1.0):
    rng = np.random.default_rng(0)
    x = scale * rng.normal(size=(samples, size))
    y = scale * (1.3 * rng.normal(size=(reals, size)) + 0.5)
    return x.astype(np.float32), y.astype(np.float32)


def distances(a, b):
    return np.array([[np.linalg.norm(p - q) for q in b] for p in a.astype(float)])


def by_loops(x, y, k):
    """(precision, recall) and (density, coverage), as the papers write them."""

    def radius(points, i):
        others = [np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    real = [radius(y.astype(float), i) for i in range(len(y))]
    made = [radius(x.astype(float), i) for i in range(len(x))]
    d = distances(x, y)
    precision = np.mean([(row <= real).any() for row in d])
    recall = np.mean([(column <= made).any() for column in d.T])
    density = sum((row < real).sum() for row in d) / (k * len(x))
    coverage = np.mean([d[:, i].min() < real[i] for i in range(len(y))])
    return (precision, recall), (density, coverage)


@pytest.mark.parametrize(("k", "block"), [(1, 1000), (3, 12)])
def test_all_four_are_those_of_slow_loops(k, block):
    x, y = clouds()
    balls = Balls(block=block)
    wanted = by_loops(x, y, k)
    for measure, numbers in zip(
        (manifold.precision_recall, manifold.density_coverage), wanted, strict=True
    ):
        found = [share.value for share in measure(x, y, k=k, balls=balls)]
        np.testing.assert_allclose(found, numbers, rtol=1e-12)


def test_the_order_of_images_does_not_matter():
    x, y = clouds()
    rng = np.random.default_rng(1)
    for measure in (manifold.precision_recall, manifold.density_coverage):
        pairs = [(x, y), (rng.permutation(x), rng.permutation(y))]
        found = [[share.value for share in measure(*pair)] for pair in pairs]
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_precision_and_recall_are_torch_fidelitys():
    torch = pytest.importorskip("torch", reason="theirs is PyTorch")
    metric = fidelity.module("metric_prc")
    x, y = clouds(150, 130)
    theirs = metric.prc_features_to_metric(
        torch.tensor(x), torch.tensor(y), verbose=False
    )
    found = manifold.precision_recall(x, y, balls=Balls(block=40))
    assert 0.1 < theirs["precision"] < 0.99 and 0.1 < theirs["recall"] < 0.99
    wanted = [theirs["precision"], theirs["recall"]]
    np.testing.assert_allclose([share.value for share in found], wanted, rtol=1e-6)


def test_equal_sets_have_the_expected_density_and_coverage():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1500, 3)).astype(np.float32)
    density, coverage = manifold.density_coverage(x, y, k=5)
    # Naeem et al., Sec. 3.3: 1 and 1 - 2^-5 for large sets of equal numbers.
    assert abs(density.value - 1) < 4 * density.error + 0.02
    assert abs(coverage.value - (1 - 2**-5)) < 4 * coverage.error + 0.005


def test_half_precision_rounds_every_product_and_sum():
    x, y = clouds(scale=4.0)
    half = np.float16
    u, v = x.astype(half), y.astype(half)
    norms = [
        np.array([half(np.square(r).astype(float).sum()) for r in a]) for a in (u, v)
    ]
    products = (u.astype(float) @ v.astype(float).T).astype(half)
    steps = (norms[0][:, None] - half(2) * products).astype(half) + norms[1][None]
    found = np.asarray(squared_half(x, y))
    assert found.dtype == np.float32
    # Sums in another order may end on the next number of 16 bits.
    np.testing.assert_allclose(found, np.maximum(steps, 0).astype(float), rtol=2e-2)
    np.testing.assert_array_equal(found, found.astype(half).astype(np.float32))
    exact = np.asarray(squared(x, y))
    assert 0 < np.abs(found - exact).max() < 0.02 * exact.max()


def test_half_precision_gives_way_where_it_overflows():
    x, y = clouds(scale=200.0)
    assert np.square(distances(x, y)).max() > np.finfo(np.float16).max
    np.testing.assert_array_equal(squared_half(x, y), squared(x, y))


def test_adm_decides_for_a_whole_block():
    # One image out of range takes its block to float32, not the others.
    x, _ = clouds(scale=4.0)
    wild = x.copy()
    wild[0] = 300.0
    tame = np.asarray(squared_half(x, x))[1:, 1:]
    assert np.abs(np.asarray(squared_half(wild, wild))[1:, 1:] - tame).max() > 0
    assert ADM.block == 10_000 and ADM.balls.distance is squared_half


@pytest.mark.exhaustive
def test_half_precision_moves_precision_and_recall_little():
    found = manifold.precision_recall(*clouds(), balls=ADM.balls)
    exact = manifold.precision_recall(*clouds())
    for one, other in zip(found, exact, strict=True):
        assert abs(one.value - other.value) < 0.05


def test_the_error_of_a_share_is_that_of_a_coin():
    share = manifold.Share.of(np.array([1, 0, 0, 0]) > 0)
    np.testing.assert_allclose(share, (0.25, np.sqrt(0.25 * 0.75 / 4)))


def test_distances_are_exact_to_float32():
    x, y = clouds()
    found = np.sqrt(np.asarray(squared(jnp.asarray(x), jnp.asarray(y))))
    np.testing.assert_allclose(found, distances(x, y), rtol=1e-5)


def test_k_needs_as_many_neighbours():
    with pytest.raises(ValueError, match="need 1 <= k < images, got k=3, images=3"):
        manifold.precision_recall(*clouds(9, 3))
