"""The board of two classes: counts of known points, and a trained network."""

import numpy as np
import pytest

from jaxguide.experiments import mg_grid
from jaxguide.experiments.fitting import Recipe
from jaxguide.experiments.mg_grid import BOARD


def test_real_points_are_no_outliers_and_reach_every_cell():
    label = np.arange(20_000) % 2
    points = BOARD.sample(np.random.default_rng(0), label)
    outliers, coverage = mg_grid.counts(points, label)
    assert outliers == 0 and coverage > 0.999
    outliers, _ = mg_grid.counts(points, 1 - label)
    assert outliers == 1


def test_outliers_are_beyond_the_margin_and_do_not_cover():
    corner = np.array(
        [[-(BOARD.side - 1) / 2, -(BOARD.side - 1) / 2]]
    )  # a square of class 0
    label = np.zeros(1, int)
    for beyond, wanted in ((0.0, 0), (BOARD.margin / 2, 0), (2 * BOARD.margin, 1)):
        shifted = corner - np.array([[BOARD.edge / 2 + beyond, 0.0]])
        outliers, coverage = mg_grid.counts(shifted, label)
        assert outliers == wanted
        np.testing.assert_allclose(
            coverage, (1 - wanted) / (BOARD.side * BOARD.pieces) ** 2
        )


@pytest.mark.exhaustive
def test_guidance_learnt_or_sampled_leaves_fewer_outliers():
    recipe = Recipe(2000)
    plain, guided = (mg_grid.train(weight, recipe) for weight in (0.0, 0.2))
    conditional = mg_grid.counts(*mg_grid.sample(plain, 1.0, 4000))
    cfg = mg_grid.counts(*mg_grid.sample(plain, 1.25, 4000))
    learnt = mg_grid.counts(*mg_grid.sample(guided, 1.0, 4000))
    assert cfg[0] < conditional[0]
    assert learnt[0] < conditional[0]
