"""Schedules are exact at their edges; grids are the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import paths
from jaxguide.guidance import schedules
from jaxguide.samplers import grids

FAST_COMPILE = True


@pytest.mark.parametrize("steps", [10, 20, 25, 30, 40, 50, 100, 250])
@pytest.mark.parametrize(
    ("low", "high"), [(0.1, 0.9), (0.3, 0.7), (0.2, 1.0), (0.0, 0.5)]
)
def test_a_window_is_half_open_on_every_grid(steps, low, high):
    """Edges counted in integers of a thousandth, where nothing rounds."""
    times = np.linspace(1.0, 0.0, steps + 1)
    on = schedules.window(2.0, t_lo=low, t_hi=high, outside=0.0)
    exact = [1000 * (steps - i) for i in range(steps + 1)]
    lo, hi = round(1000 * low) * steps, round(1000 * high) * steps
    want = [lo <= e and (e < hi or high == 1.0) for e in exact]
    assert [float(v) == 2.0 for v in on.on_grid(times, times)] == want
    assert [not on.neutral_at(float(t), 0.0) for t in times] == want


def test_a_window_includes_its_low_edge_and_not_its_high_one():
    on = schedules.window(4.0, t_lo=0.2, t_hi=0.8, outside=1.0)
    assert [float(on.at(t)) for t in (0.1, 0.2, 0.5, 0.8, 0.9)] == [1, 4, 4, 1, 1]


def test_windows_nest_and_the_outer_one_decides_first():
    inner = schedules.window(4.0, t_lo=0.2, t_hi=0.8, outside=1.0)
    outer = schedules.window(inner, t_lo=0.5, t_hi=1.0, outside=0.0)
    times = np.array([0.9, 0.6, 0.3, 0.1])
    want = [1.0, 4.0, 0.0, 0.0]
    assert [float(outer.at(t)) for t in times] == want
    assert outer.on_grid(times, times).tolist() == want
    assert [float(outer.on_host(t)) for t in times] == want


def ramp(t):
    return 3 * t + 1


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.constant(2.5),
        schedules.constant(ramp),
        schedules.constant(jnp.asarray([1.0, 2.0])),
        schedules.Schedule(jnp.asarray([1.0, 2.0]), shape=ramp),
        schedules.window(ramp, t_lo=0.3, t_hi=0.7, outside=0.0),
        schedules.window(jnp.asarray([1.0, 2.0]), t_lo=0.3, t_hi=0.7, outside=-1.0),
    ],
)
def test_a_grid_is_its_points(schedule):
    times = np.linspace(0.95, 0.0, 12)
    grid = schedule.on_grid(times, times)
    points = jnp.stack([schedule.at(float(t)) for t in times])
    traced = jax.vmap(schedule.at)(jnp.asarray(times, jnp.float32))
    np.testing.assert_allclose(grid, points, rtol=1e-6)
    np.testing.assert_allclose(grid, traced, rtol=1e-6)
    host = np.stack(
        [schedule.on_host(float(t)) * np.ones(grid.shape[1:]) for t in times]
    )
    np.testing.assert_allclose(grid, host, rtol=1e-6)


def test_windows_may_be_judged_at_another_time():
    on = schedules.window(ramp, t_lo=0.5, t_hi=1.0, outside=0.0)
    assert float(on.at(0.4, 0.6)) == pytest.approx(2.2)
    grid = on.on_grid(np.array([0.4, 0.9]), np.array([0.6, 0.1]))
    np.testing.assert_allclose(grid, [2.2, 0.0], rtol=1e-6)


def test_a_shape_may_mix_integers_and_floats():
    times = np.array([0.9, 0.1])
    out = schedules.constant(lambda t: 2 if t > 0.5 else 0.5).on_grid(times, times)
    assert out.tolist() == [2.0, 0.5]


def test_traced_values_flow_and_are_not_known_on_the_host():
    seen = []

    def total(value):
        on = schedules.window(value, t_lo=0.4, t_hi=1.0, outside=0.0)
        seen.append((on.on_host(0.5), float(on.on_host(0.1))))
        assert not on.neutral_at(0.5, 0.0) and on.neutral_at(0.1, 0.0)
        return on.on_grid(np.array([0.9, 0.5, 0.1]), np.array([0.9, 0.5, 0.1])).sum()

    assert float(jax.jit(total)(3.0)) == 6.0
    assert float(jax.grad(total)(3.0)) == 2.0
    assert jax.vmap(total)(jnp.arange(3.0)).tolist() == [0.0, 2.0, 4.0]
    assert seen[0] == (None, 0.0)


def test_a_shape_may_close_over_a_traced_value():
    grid = np.array([0.5, 0.25])
    run = lambda s: schedules.constant(lambda t: s * t).on_grid(grid, grid)  # noqa: E731
    assert jax.jit(run)(2.0).tolist() == [1.0, 0.5]
    assert not schedules.constant(lambda t: 0.0).on_host(0.5)


def test_a_neutral_array_must_be_neutral_everywhere():
    assert schedules.constant(jnp.ones(3)).neutral_at(0.5, 1.0)
    assert not schedules.constant(jnp.asarray([1.0, 2.0])).neutral_at(0.5, 1.0)


def test_uniform_steps_are_equal():
    np.testing.assert_allclose(grids.uniform(4), [1, 0.75, 0.5, 0.25, 0], rtol=0)


def test_a_last_step_of_its_own_length_is_that_of_sit():
    """SiT: linspace(0, 0.96, 250) in its time, 249 steps, and one of 0.04."""
    sit = 1 - np.append(np.linspace(0, 0.96, 250), 1.0)
    grid = grids.uniform(250, last_step=0.04)
    np.testing.assert_allclose(grid, sit, atol=1e-15)
    assert len(grid) == 251


def test_no_shift_is_uniform_and_a_shift_is_the_formula_of_sd3():
    np.testing.assert_allclose(grids.shifted(7, 1.0), grids.uniform(7), atol=1e-15)
    t = np.linspace(1, 0, 5)
    np.testing.assert_allclose(grids.shifted(4, 3.0), 3 * t / (1 + 2 * t), atol=1e-15)
    # LightningDiT states its shift 0.3 in data time.
    data = 1 - t
    moved = 0.3 * data / (1 + (0.3 - 1) * data)
    np.testing.assert_allclose(grids.shifted(4, 1 / 0.3), 1 - moved, atol=1e-12)


@pytest.mark.parametrize("path", [paths.Linear(), paths.GVP(), paths.VP(), paths.EDM()])
def test_karras_levels_are_equally_spaced_in_their_root(path):
    grid = grids.karras(9, path, sigma_min=0.01, sigma_max=20.0, rho=5.0)
    assert len(grid) == 10 and grid[-1] == 0.0
    node = path.node(grid[:-1])
    ratio = node.sigma / node.alpha
    np.testing.assert_allclose(ratio[[0, -1]], [20.0, 0.01], rtol=1e-6)
    steps = np.diff(ratio**0.2)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_respaced_visits_the_timesteps_of_dit():
    def timesteps(n):
        return np.round(1000 * grids.respaced(n)[:-1]).astype(int)[::-1] - 1

    few, many = timesteps(50), timesteps(250)
    assert many[:4].tolist() == [0, 4, 8, 12] and many[-2:].tolist() == [995, 999]
    assert few[:5].tolist() == [0, 20, 41, 61, 82] and few[-2:].tolist() == [979, 999]
    assert timesteps(1000).tolist() == list(range(1000))
    assert grids.respaced(1).tolist() == [1.0, 0.0]
    assert len(grids.respaced(250)) == 251 and grids.respaced(250)[-1] == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: schedules.window(1.0, t_lo=0.9, t_hi=0.1, outside=0.0),
            "window: need 0 <= t_lo < t_hi <= 1, got t_lo=0.9, t_hi=0.1",
        ),
        (lambda: schedules.window(1.0, t_lo=-0.1, outside=0.0), "got t_lo=-0.1"),
        (lambda: schedules.window(1.0, t_hi=500, outside=0.0), "t_hi=500.*noise times"),
        (lambda: grids.uniform(0), "uniform: need an integer num_steps from 1"),
        (lambda: grids.uniform(2.5), "uniform: need an integer .*num_steps=2.5"),
        (
            lambda: grids.uniform(5, last_step=1.0),
            "uniform: need 0 < last_step < 1",
        ),
        (lambda: grids.uniform(1, last_step=0.1), "num_steps >= 2"),
        (lambda: grids.shifted(0), "shifted: need an integer num_steps from 1"),
        (
            lambda: grids.shifted(5, 0.0),
            "shifted: need a finite shift > 0, got shift=0.0",
        ),
        (
            lambda: grids.karras(5, paths.EDM(), sigma_min=0.0),
            "karras: need finite 0 < sigma_min",
        ),
        (lambda: grids.karras(5, paths.EDM(), rho=0.0), "karras: need .*rho=0.0"),
        (
            lambda: grids.karras(5, paths.EDM(), sigma_max=90.0),
            "karras: need sigma_max <= 80",
        ),
        (lambda: grids.respaced(0), "respaced: need an integer num_steps from 1"),
        (lambda: grids.respaced(1001), "respaced: need num_steps <= num_timesteps"),
        (
            lambda: paths.check_grid("generate", [0.0, 1.0]),
            "generate: need a strictly decreasing grid of noise times",
        ),
        (lambda: paths.check_grid("generate", [1.0]), "strictly decreasing"),
        (lambda: paths.check_grid("generate", [1.5, 0.0]), "strictly decreasing"),
        (
            lambda: paths.check_grid("generate", [1.0, float("nan"), 0.0]),
            "decreasing",
        ),
        (lambda: paths.check_grid("generate", [[1.0, 0.0]]), "strictly decreasing"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_traced_grid_is_refused():
    with pytest.raises(ValueError, match="generate: need a grid known on the host"):
        jax.jit(lambda grid: paths.check_grid("generate", grid))(jnp.ones(3))
