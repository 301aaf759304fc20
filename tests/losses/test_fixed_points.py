"""What losses converge to, where every round of training is solved exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import paths
from jaxguide.experiments import linear_classes
from jaxguide.experiments.linear_classes import CLASSES, MEANS, STDS, TIMES
from jaxguide.experiments.mg_fixed_points import CASES

FAST_COMPILE = True
# The first of Model-Guidance; the other losses in the exhaustive run.
FIRST = {case.loss: case for case in reversed(CASES) if case.scale != 1}
OTHERS = {case.loss for case in CASES} - {"model_guidance"}
SHOWN = [
    pytest.param(
        case,
        id=f"{case.loss} {case.setting}",
        marks=[]
        if case is FIRST[case.loss] and case.loss not in OTHERS
        else [pytest.mark.exhaustive],
    )
    for case in CASES
]


@pytest.mark.parametrize("case", SHOWN)
def test_a_loss_teaches_the_scale_of_its_closed_form(case):
    scale, error = linear_classes.measure(case)
    # Another class is drawn for every sample: its mean is met up to the draws.
    drawn = "other" in case.setting
    np.testing.assert_allclose(scale, case.scale, rtol=0.05 if drawn else 1e-3)
    assert error < (0.15 if drawn else 5e-3 * case.scale)


def test_at_weight_one_there_is_no_fixed_point():
    case = CASES[0]
    base = linear_classes.plain(case.options)
    away = base[CLASSES]
    learnt = [
        linear_classes.solve(case, weight=1.0, rounds=rounds) for rounds in (5, 10, 20)
    ]
    change = [
        float(((p - away)[:CLASSES] * (base - away)[:CLASSES]).sum()) for p in learnt
    ]
    # One more unit of scale in every round.
    unit = float(np.square((base - away)[:CLASSES]).sum())
    np.testing.assert_allclose(np.array(change) / unit, [5, 10, 20], rtol=1e-2)


def test_the_unguided_network_is_the_posterior_mean_of_the_gaussians():
    params = linear_classes.plain()[:CLASSES]
    slope, offset = params[:, len(TIMES) :], params[:, : len(TIMES)]
    t, std = np.array(TIMES)[None], np.array(STDS)[:, None]
    mean = np.array(MEANS)[:, None]
    variance = (1 - t) ** 2 * std**2 + t**2
    gain = (t - (1 - t) * std**2) / variance  # of the velocity noise - x0
    # 330 draws per class and time: standard errors up to 0.1.
    np.testing.assert_allclose(slope, gain, atol=0.25)
    np.testing.assert_allclose(offset, -mean - gain * (1 - t) * mean, atol=0.25)


def test_a_linear_model_reads_its_inputs():
    params = jnp.arange(8 * 12.0).reshape(8, 12)[: CLASSES + 1]
    x = jnp.full((1, 1, 1, 1), 2.0)
    t = jnp.full(1, TIMES[1])
    label = jnp.ones(1, jnp.int32)
    row = np.arange(12.0, 24.0)
    for value in (1.0, 0.5):
        made = linear_classes.predict(params, x, t, label, beta=jnp.full(1, value))
        expected = row[1] + 2 * row[4] + (row[7] + 2 * row[10]) / value
        np.testing.assert_allclose(made.ravel(), expected)


def test_the_table_has_every_loss_that_guides():
    assert {case.loss for case in CASES} == {
        "cfg_distillation",
        "gft",
        "mean_flow",
        "model_guidance",
        "scale_aware_model_guidance",
    }
    assert isinstance(dict(CASES[5].options)["path"], paths.VP)
    assert jax.tree.leaves(CASES[0].options)
