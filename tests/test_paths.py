"""Noise paths: exact conversions, exact inverses, derivatives that are derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxguide import paths

FAST_COMPILE = True

PATHS = {
    "linear": paths.Linear(),
    "gvp": paths.GVP(),
    "vp": paths.VP(),
    "vp_constant_rate": paths.VP(5.0, 5.0),
    "ddpm": paths.DDPM(),
    "ddpm_short": paths.DDPM(50),
    "scaled_linear": paths.scaled_linear(),
    "edm": paths.EDM(10.0),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
inner_time = st.floats(0.02, 0.98)
values = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3)


def expressions(x0, noise, node):
    """The four predictions of a known pair, from Eqs. (2) to (5) in float64."""
    return {
        "velocity": node.dalpha * x0 + node.dsigma * noise,
        "denoised": x0,
        "noise": noise,
        "score": -noise / node.sigma,
    }


@settings(max_examples=25, deadline=None)
@given(t=inner_time, x0=values, noise=values, name=st.sampled_from(sorted(PATHS)))
def test_every_kind_converts_to_every_kind(t, x0, noise, name):
    path = PATHS[name]
    node = path.node(t)
    x0, noise = np.array([x0]), np.array([noise])
    x = node.alpha * x0 + node.sigma * noise
    truth = expressions(x0, noise, node)
    # What rounding x and the prediction to float32 can do to the result.
    gain = 1 + float(max(node.sigma / node.alpha, node.alpha / node.sigma)) / float(
        min(node.sigma, 1)
    )
    for source in paths.KINDS:
        given_to = jnp.asarray(truth[source], jnp.float32)
        for to in paths.KINDS:
            got = paths.convert(given_to, jnp.asarray(x, jnp.float32), node, source, to)
            size = 1 + np.abs(truth[to]).max() + np.abs(truth[source]).max()
            np.testing.assert_allclose(
                got, truth[to], atol=2e-6 * gain * size, rtol=1e-5,
                err_msg=f"{name} t={t} {source} -> {to}",
            )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(t=inner_time, name=st.sampled_from(sorted(PATHS)))
def test_a_difference_converts_by_its_factor_alone(t, name):
    node = PATHS[name].node(t)
    rng = np.random.default_rng(0)
    x, first, second = rng.normal(size=(3, 1, 4))
    for source in paths.KINDS:
        with jax.enable_x64(True):
            one, two = (
                {
                    to: np.asarray(
                        paths.convert(jnp.asarray(p), jnp.asarray(x), node, source, to)
                    )
                    for to in paths.KINDS
                }
                for p in (first, second)
            )
        for to in paths.KINDS:
            factor = paths.difference_factor(node, source, to)
            want = one[to] - two[to]
            np.testing.assert_allclose(
                factor * (first - second), want, rtol=1e-7, atol=1e-9 * abs(want).max()
            )


@every_path
def test_derivatives_are_the_slopes_of_the_coefficients(path):
    # Between the knots of the tables, where their slope is defined.
    times = (np.arange(1, 50) + 0.5) / 50 + 0.0034
    times = times[times < 0.99]
    h = 1e-6
    node, up, down = path.node(times), path.node(times + h), path.node(times - h)
    for value, slope in (("alpha", "dalpha"), ("sigma", "dsigma")):
        measured = (getattr(up, value) - getattr(down, value)) / (2 * h)
        np.testing.assert_allclose(getattr(node, slope), measured, rtol=1e-5, atol=1e-7)


@every_path
def test_time_inverts_the_noise_to_signal_ratio(path):
    times = np.linspace(0.01, 0.97, 40)
    node = path.node(times)
    np.testing.assert_allclose(path.time(node.sigma / node.alpha), times, rtol=1e-7)
    ratio = jnp.asarray(node.sigma / node.alpha, jnp.float32)
    np.testing.assert_allclose(path.time(ratio), times, rtol=2e-4)


@every_path
def test_the_ends_are_data_and_noise(path):
    for t in (0.0, jnp.float32(0.0)):
        node = path.node(t)
        assert (float(node.alpha), abs(float(node.sigma))) == (1.0, 0.0)
        assert not any(np.isnan(np.asarray(c)) for c in node)
    last = path.node(1.0)
    assert float(last.sigma) > 0.5 * float(last.alpha)
    assert not any(np.isnan(np.asarray(c)) for c in last)


@pytest.mark.parametrize("count", [1, 2, 7, 10, 50, 100, 250, 999, 1000, 4000])
def test_a_discrete_table_is_exact_at_its_knots_and_clean_at_zero(count):
    path = paths.DDPM(count)
    betas = np.linspace(1e-4, 0.02, count)
    alpha_bar = np.cumprod(1 - betas)
    node = path.node((np.arange(count) + 1) / count)
    np.testing.assert_allclose(node.alpha**2, alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(node.sigma**2, 1 - alpha_bar, rtol=1e-9)
    assert float(path.node(0.0).sigma) == 0.0
    traced = jax.jit(path.node)(
        jnp.asarray((np.arange(count) + 1) / count, jnp.float32)
    )
    np.testing.assert_allclose(traced.alpha**2, alpha_bar, rtol=2e-3, atol=1e-6)


@every_path
def test_traced_times_give_what_host_times_give(path):
    times = np.linspace(0.05, 1.0, 20)
    host, traced = path.node(times), jax.jit(path.node)(jnp.asarray(times, jnp.float32))
    assert host.alpha.dtype == np.float64 and traced.alpha.dtype == jnp.float32
    for name, one, two in zip(host._fields, host, traced, strict=True):
        np.testing.assert_allclose(two, one, rtol=3e-4, atol=3e-6, err_msg=name)


@every_path
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_targets_and_corruption_follow_the_equations_and_keep_the_dtype(path, dtype):
    rng = np.random.default_rng(1)
    x0, noise = rng.normal(size=(2, 5, 2, 3))
    t = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    node = path.node(jnp.asarray(t, jnp.float32))
    # From what the functions are given, so that only their own rounding counts.
    data, dirt = jnp.asarray(x0, dtype), jnp.asarray(noise, dtype)
    x0, noise = np.asarray(data, np.float64), np.asarray(dirt, np.float64)
    column = [np.asarray(c, np.float64)[:, None, None] for c in node]
    wide = paths.Node(*column)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.03
    got = paths.corrupt(data, dirt, node)
    assert got.dtype == dtype
    want = wide.alpha * x0 + wide.sigma * noise
    np.testing.assert_allclose(
        np.asarray(got, np.float64), want, rtol=tolerance, atol=tolerance * 10
    )
    for kind, want in expressions(x0, noise, wide).items():
        got = paths.target(kind, data, dirt, node)
        assert got.dtype == dtype and got.shape == want.shape
        np.testing.assert_allclose(
            np.asarray(got, np.float64), want, rtol=tolerance,
            atol=tolerance * 10 * np.abs(want).max(), err_msg=kind,
        )  # fmt: skip


def test_the_score_is_the_gradient_of_the_log_density():
    """One Gaussian: log p_t is known, its gradient is taken by differences."""
    path, t, std, mean = paths.GVP(), 0.4, 0.6, 0.3
    node = path.node(t)
    variance = float(node.alpha**2 * std**2 + node.sigma**2)
    x = np.array([[-1.0, 0.2, 0.9]])
    log_p = lambda x: -((x - node.alpha * mean) ** 2) / (2 * variance)  # noqa: E731
    want = (log_p(x + 1e-6) - log_p(x - 1e-6)) / 2e-6
    denoised = mean + node.alpha * std**2 / variance * (x - node.alpha * mean)
    got = paths.convert(
        jnp.asarray(denoised, jnp.float32), jnp.asarray(x, jnp.float32), node,
        "denoised", "score",
    )  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: paths.VP(0.0, 1.0), "VP: need 0 < beta_min <= beta_max.*beta_min=0.0"),
        (lambda: paths.VP(2.0, 1.0), "VP: need 0 < beta_min <= beta_max.*beta_max=1.0"),
        (lambda: paths.VP(beta_max=np.inf), "VP: need .*finite.*beta_max=inf"),
        (lambda: paths.DDPM(0), "DDPM: need an integer num_timesteps.*num_timesteps=0"),
        (lambda: paths.DDPM(10**11), "from 1 to 1000000, got num_timesteps=1000000000"),
        (lambda: paths.DDPM(50.0), "DDPM: need an integer.*num_timesteps=50.0"),
        (lambda: paths.DDPM(schedule="cosine"), "need schedule in .*schedule='cosine'"),
        (lambda: paths.DDPM(beta_end=1.0), "DDPM: need .* < 1, got.*beta_end=1.0"),
        (lambda: paths.EDM(0.0), "EDM: need a finite sigma_max > 0.*sigma_max=0.0"),
        (lambda: paths.EDM(np.nan), "EDM: need a finite sigma_max.*sigma_max=nan"),
    ],
)
def test_impossible_paths_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda x, n: paths.target("v", x, x, n),
        lambda x, n: paths.to_pair("v", x, x, n),
        lambda x, n: paths.convert(x, x, n, "velocity", "v"),
        lambda x, n: paths.convert(x, x, n, "v", "velocity"),
        lambda x, n: paths.difference_factor(n, "v", "score"),
    ],
)
def test_an_unknown_kind_is_named(call):
    with pytest.raises(ValueError, match="need kind in .*'velocity'.*got kind='v'"):
        call(jnp.ones((1, 2)), paths.Linear().node(0.5))
