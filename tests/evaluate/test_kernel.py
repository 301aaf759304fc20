"""Kernel distances and the Inception Score against double sums and torch-fidelity."""

import numpy as np
import pytest

from jaxguide.evaluate import inception_score, kernel
from jaxguide.evaluate.protocols import ADM, PLAIN, TORCH_FIDELITY
from tests.evaluate import fidelity


def features(count, seed, size=6):
    return np.random.default_rng(seed).normal(size=(count, size)) + seed / 3


def by_loops(x, y):
    """Binkowski et al., Eq. 4, term by term."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    def mean(left, right, same):
        pairs = [
            k(a, b)
            for i, a in enumerate(left)
            for j, b in enumerate(right)
            if not (same and i == j)
        ]
        return sum(pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_kernel_distance_is_the_double_sum():
    x, y = features(23, 0), features(17, 1)
    found = kernel.kernel_distance(x, y, blocks=4)
    np.testing.assert_allclose(found.value, by_loops(x, y), rtol=1e-9)


def test_its_error_is_that_of_leaving_blocks_out_by_hand():
    x, y = features(20, 0), features(12, 1)
    left_out = []
    for block in range(4):
        kept_x = np.delete(x, slice(5 * block, 5 * block + 5), 0)
        kept_y = np.delete(y, slice(3 * block, 3 * block + 3), 0)
        left_out.append(by_loops(kept_x, kept_y))
    spread = np.sqrt(3 / 4 * np.square(left_out - np.mean(left_out)).sum())
    found = kernel.kernel_distance(x, y, blocks=4)
    np.testing.assert_allclose(found.spread, spread, rtol=1e-9)


def test_large_sets_are_summed_in_pieces(monkeypatch):
    x, y = features(50, 0), features(40, 1)
    whole = kernel.kernel_distance(x, y, blocks=3)
    kept = kernel.kernel_distance(x, y, blocks=3, within_y=kernel.Within.of(y, 3))
    assert kept == whole
    monkeypatch.setattr(kernel, "_ROWS", 7)
    monkeypatch.setattr(kernel, "_COLUMNS", 9)
    np.testing.assert_allclose(kernel.kernel_distance(x, y, blocks=3), whole, rtol=1e-9)


def test_kernel_distance_is_unbiased_and_its_error_tells_how_far_it_is_off():
    found = [
        kernel.kernel_distance(features(100, 3 * s), features(80, 3 * s + 1) - 1 / 3)
        for s in range(60)
    ]
    values, errors = np.array(found).T
    # 60 draws: their mean within three of its deviations, their deviation as claimed.
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(60)
    assert 0.6 < values.std() / np.sqrt(np.square(errors).mean()) < 1.4


def test_subsets_are_torch_fidelitys():
    torch = pytest.importorskip("torch", reason="theirs is PyTorch")
    metric = fidelity.module("metric_kid")
    x, y = features(90, 0), features(70, 1)
    theirs = metric.kid_features_to_metric(
        torch.tensor(x),
        torch.tensor(y),
        kid_subsets=9,
        kid_subset_size=40,
        verbose=False,
    )
    ours = kernel.subset_kernel_distance(
        x, y, subsets=9, size=40, seed=TORCH_FIDELITY.seed
    )
    wanted = [theirs[f"kernel_inception_distance_{name}"] for name in ("mean", "std")]
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_the_protocol_has_torch_fidelitys_defaults():
    pytest.importorskip("torch", reason="theirs is PyTorch")
    defaults = fidelity.module("defaults").DEFAULTS
    ours = TORCH_FIDELITY
    assert ours.kernel_subsets == defaults["kid_subsets"]
    assert ours.kernel_size == defaults["kid_subset_size"]
    assert ours.seed == defaults["rng_seed"]
    assert ours.score_parts == defaults["isc_splits"] and not ours.score_size
    assert ours.precision_k == defaults["prc_neighborhood"]


def test_too_few_images_for_the_parts_are_named():
    with pytest.raises(ValueError, match=r"kernel_distance: need 40 images or more"):
        kernel.kernel_distance(features(39, 0), features(99, 0))
    with pytest.raises(ValueError, match=r"need 1000 images or more in both sets"):
        kernel.subset_kernel_distance(
            features(999, 0), features(1000, 0), subsets=1, size=1000, seed=0
        )


def logits(count, classes=5, seed=0):
    return 3 * np.random.default_rng(seed).normal(size=(count, classes))


def score_by_loops(rows):
    shares = [np.exp(row) / np.exp(row).sum() for row in rows]
    whole = sum(shares) / len(shares)
    gaps = [(p * np.log(p / whole)).sum() for p in shares]
    return np.exp(sum(gaps) / len(gaps))


def test_adm_scores_parts_in_the_order_of_the_file():
    rows = logits(11_000)
    parts = rows[:5000], rows[5000:10_000], rows[10_000:]
    scores = [score_by_loops(part) for part in parts]
    found = ADM.inception_score(rows)
    np.testing.assert_allclose(found, (np.mean(scores), np.std(scores)), rtol=1e-9)


@pytest.mark.parametrize("count", [100, 137])
def test_parts_of_shuffled_images_are_torch_fidelitys(count):
    torch = pytest.importorskip("torch", reason="theirs is PyTorch")
    metric = fidelity.module("metric_isc")
    rows = logits(count, 20)
    theirs = metric.isc_features_to_metric(torch.tensor(rows))
    wanted = [theirs[f"inception_score_{name}"] for name in ("mean", "std")]
    for protocol in (TORCH_FIDELITY, PLAIN):
        found = protocol.inception_score(rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_sure_and_varied_images_score_the_number_of_classes():
    sure = 1e4 * np.eye(8)[np.arange(80) % 8]
    found = inception_score.inception_score(sure, [0, 40, 80])
    np.testing.assert_allclose(found, (8, 0), atol=1e-9)
    alike = np.ones((80, 8))
    assert inception_score.inception_score(alike, [0, 80]).mean == 1


def test_a_part_without_images_is_refused():
    with pytest.raises(ValueError, match="need an image in every part"):
        TORCH_FIDELITY.inception_score(logits(9))
