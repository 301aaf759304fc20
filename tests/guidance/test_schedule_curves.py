"""Scale rules: published curves of equal area, exact ends, and configs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxguide as jg
from jaxguide.guidance import _curves as curves, schedules
from jaxguide.sample.build import build_transform

FAST_COMPILE = True

MIDDLES = (np.arange(2000) + 0.5) / 2000

# In sampling progress p, written once more from the paper's words.
PUBLISHED = {
    "linear": lambda p: 2 * p,
    "inverse_linear": lambda p: 2 - 2 * p,
    "cosine": lambda p: np.cos(np.pi * (1 - p)) + 1,
    "sine_curve": lambda p: np.sin(np.pi * (1 - p) - np.pi / 2) + 1,
    "up_down": lambda p: np.where(p < 0.5, 4 * p, 4 - 4 * p),
    "down_up": lambda p: np.where(p < 0.5, 2 - 4 * p, 4 * p - 2),
}
every_curve = pytest.mark.parametrize("name", PUBLISHED)


def numbers(schedule, times):
    return np.array([float(schedule.on_host(float(t))) for t in times])


@every_curve
def test_a_curve_is_the_published_one_of_the_same_area(name):
    schedule = getattr(schedules, name)(4.0)
    found = numbers(schedule, MIDDLES)
    np.testing.assert_allclose(found, 4.0 * PUBLISHED[name](1 - MIDDLES), atol=1e-12)
    np.testing.assert_allclose(found.mean(), 4.0, rtol=1e-6)


@every_curve
def test_host_grid_and_traced_times_agree(name):
    times = np.linspace(1.0, 0.0, 9)
    for of in curves.PARTS:
        schedule = getattr(schedules, name)(jnp.asarray([2.0, 5.0]), of=of)
        host = np.stack([schedule.on_host(float(t)) for t in times])
        traced = jax.vmap(schedule.at)(jnp.asarray(times, jnp.float32))
        np.testing.assert_allclose(schedule.on_grid(times, times), host, atol=1e-5)
        np.testing.assert_allclose(traced, host, atol=1e-5)


@every_curve
def test_the_excess_is_what_lies_above_one(name):
    make, times = getattr(schedules, name), np.linspace(1.0, 0.0, 7)
    whole = numbers(make(3.0), times)
    excess = numbers(make(4.0, of="excess"), times)
    np.testing.assert_allclose(excess, 1 + whole, atol=1e-12)
    neutral = make(1.0, of="excess")
    assert all(neutral.neutral_at(float(t), 1.0) for t in times)


def test_a_curve_that_is_zero_somewhere_costs_nothing_there():
    guidance = jg.cfg(schedules.linear(4.0, of="excess"))
    assert [guidance.live(t) for t in (1.0, 0.9, 0.0)] == [False, True, True]


def test_the_powered_cosine_ends_at_its_value_and_rises_late():
    schedule = schedules.powered_cosine(6.0, 4.0)
    ends = numbers(schedule, [1.0, 0.5, 0.0])
    np.testing.assert_allclose(ends, [0.0, 3 * (1 - np.cos(np.pi / 16)), 6.0])
    flat = schedules.powered_cosine(6.0, 1.0)
    np.testing.assert_allclose(
        2 * numbers(flat, MIDDLES), numbers(schedules.cosine(6.0), MIDDLES)
    )


def test_clamp_is_the_larger_of_the_two_and_leaves_the_window_alone():
    times = np.linspace(1.0, 0.0, 11)
    plain = schedules.linear(4.0)
    clamped = schedules.clamp(plain, 2.0)
    want = np.maximum(numbers(plain, times), 2.0)
    np.testing.assert_allclose(numbers(clamped, times), want)
    np.testing.assert_allclose(clamped.on_grid(times, times), want, atol=1e-6)
    inside = schedules.window(plain, t_lo=0.2, t_hi=0.8, outside=1.0)
    assert numbers(schedules.clamp(inside, 2.0), [0.9, 0.5, 0.1]).tolist() == [1, 4, 1]
    assert float(schedules.clamp(0.5, 2.0).at(0.3)) == 2.0
    assert float(schedules.clamp(lambda t: 5 * t, 2.0).on_host(0.8)) == 4.0


@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (3.0, 1.5), (1.0, 1.0)])
@pytest.mark.parametrize("t_last", [0.0, 0.1])
def test_beta_is_the_density(a, b, t_last):
    schedule = schedules.beta(7.5, a, b, t_last=t_last)
    times = np.linspace(1.0, t_last, 13)
    p = (1 - times) / (1 - t_last)
    found = numbers(schedule, times)
    np.testing.assert_allclose(found[1:-1], 7.5 * scipy.stats.beta.pdf(p, a, b)[1:-1])
    if a > 1 and b > 1:
        assert found[0] == found[-1] == 0.0
    assert np.all(np.isfinite(numbers(schedule, [0.0])))


@every_curve
def test_values_stay_traced(name):
    make = getattr(schedules, name)
    slope = jax.jit(jax.grad(lambda v: make(v).at(0.3)))(2.0)
    np.testing.assert_allclose(slope, float(make(1.0).on_host(0.3)), rtol=1e-6)
    assert make(2.0).shape == make(3.0).shape  # static and equal: no second program


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: schedules.linear(2.0, of="w"), "linear: need of in .*got of='w'"),
        (lambda: schedules.cosine("2"), "cosine: need a number or an array for value"),
        (
            lambda: schedules.sine_curve(abs),
            "sine_curve: need a number or an array for value",
        ),
        (lambda: schedules.powered_cosine(2.0, 0.0), "need power > 0, got power=0.0"),
        (lambda: schedules.clamp(2.0, float("nan")), "clamp: need a finite least"),
        (lambda: schedules.beta(2.0, 0.5), "need a >= 1 and b >= 1, got a=0.5"),
        (lambda: schedules.beta(2.0, t_last=1.0), "need 0 <= t_last < 1, got t_last=1"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "scale",
    [
        "cosine(4.0)",
        "cosine(value=4.0)",
        dict(name="cosine", value=4.0),
    ],
)
def test_a_config_writes_a_schedule_as_text_or_dict(scale):
    built = build_transform(dict(name="cfg", scale=scale, t_lo=0.2))
    want = jg.cfg(schedules.cosine(4.0), t_lo=0.2)
    assert jax.tree.structure(built) == jax.tree.structure(want)
    assert jax.tree.leaves(built) == jax.tree.leaves(want)


def test_schedules_nest_in_a_config():
    built = build_transform(dict(name="cfg", scale="clamp('linear(4.0)', 2.0)"))
    assert float(built.weights[0].on_host(1.0)) == 2.0
    assert float(built.weights[0].on_host(0.25)) == 6.0


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("cosin(4.0)", "Did you mean 'cosine'?"),
        ("cosine(4.0, 3.0, 2.0)", "cosine: need at most 1"),
        ("cosine(4.0, valeu=3.0)", "Did you mean 'value'?"),
        ("cosine()", "cosine: need value"),
        ("4.0", "a number for scale, got scale='4.0'"),
        (dict(value=4.0), "a number for scale, got scale={'value': 4.0}"),
        ("linear(4.0, of='w')", "linear: need of in"),
    ],
)
def test_a_wrong_schedule_in_a_config_is_one_line(scale, message):
    with pytest.raises(ValueError) as error:
        build_transform(dict(name="cfg", scale=scale))
    assert message in str(error.value) and "\n" not in str(error.value)
