"""Exponential and multistep samplers against slow float64 references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import Pair
from jaxguide.oracle import GaussianMixture
from jaxguide.samplers._exponential import log_snr, moment
from jaxguide.samplers._second import Exponential
from tests.march import MEANS, MODEL, NOISE, march, predict

FAST_COMPILE = True
PATHS = {
    "linear": paths.Linear(),
    "gvp": paths.GVP(),
    "vp": paths.VP(),
    "edm": paths.EDM(5.0),
}
GRID = np.array([0.95, 0.8, 0.7, 0.5, 0.35, 0.2, 0.1])
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


@pytest.mark.parametrize("k", range(4))
def test_moments_are_the_integrals_they_stand_for(k):
    steps = [1e-6, 1e-3, 0.3, 0.999, 1.0, 1.001, 4.0, 30.0]
    want = [
        quad(lambda u, h=h: h * np.exp(-h * (1 - u)) * u**k, 0, 1, epsabs=0)[0]
        for h in steps
    ]
    np.testing.assert_allclose(moment(k, np.array(steps)), want, rtol=1e-11)
    assert moment(k, np.inf) == 1


# UniPC.


def areas(points, h):
    """integral_0^h e^(r - h) L_j(r) dr of the Lagrange polynomials of `points`."""
    out = []
    for j, here in enumerate(points):
        others = [p for i, p in enumerate(points) if i != j]

        def weighed(r, here=here, others=others):
            return np.exp(r - h) * np.prod([(r - p) / (here - p) for p in others])

        out.append(quad(weighed, 0, h, epsabs=1e-14, epsrel=1e-13)[0])
    return np.array(out)


def unipc_twice(path, grid, order, variant, lower_order_final=True):
    """UniPC as published: correct the last step, then predict from the result."""
    node = path.node(grid)
    l, alpha, sigma = np.log(node.alpha / node.sigma), node.alpha, node.sigma  # noqa: E741
    x, seen, last, used = NOISE * sigma[0], [], None, 0

    def go(start, i, points):
        """From grid[i] to the next, through D at the grid's `points`."""
        h = l[i + 1] - l[i]
        moved = sigma[i + 1] / sigma[i] * start
        if len(points) != 2:
            weights = areas([l[p] - l[i] for p in points], h)
            return moved + alpha[i + 1] * sum(
                w * seen[p] for w, p in zip(weights, points, strict=True)
            )
        # One difference: half of B(h), whatever the other point is.
        other = next(p for p in points if p != i)
        half = (h if variant == "bh1" else 1 - np.exp(-h)) / 2
        slope = (seen[other] - seen[i]) / ((l[other] - l[i]) / h)
        return moved + alpha[i + 1] * ((1 - np.exp(-h)) * seen[i] + half * slope)

    for i in range(len(grid) - 1):
        seen.append(predict(path, x, grid[i])[0])
        if i > 0:
            x = go(last, i - 1, [i, *range(i - 1, i - 1 - used, -1)])
        used = min(order, i + 1)
        if lower_order_final:
            used = min(used, len(grid) - 1 - i)
        last, x = x, go(x, i, list(range(i, i - used, -1)))
    return x


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@every_path
def test_unipc_is_the_corrector_and_then_the_predictor(order, variant, path):
    for final in (True, False):
        sampler = jg.unipc(order, variant=variant, lower_order_final=final)
        want = unipc_twice(path, GRID, order, variant, final)
        np.testing.assert_allclose(march(sampler, path, GRID), want, rtol=1e-10)


def test_without_its_corrector_unipc_is_ddim_and_dpmpp_2m():
    one = jg.unipc(1, corrector=False)
    np.testing.assert_array_equal(
        march(one, paths.VP(), GRID), march(jg.ddim(), paths.VP(), GRID)
    )
    two = jg.unipc(2, corrector=False, lower_order_final=False)
    np.testing.assert_allclose(
        march(two, paths.VP(), GRID), march(jg.dpmpp_2m(), paths.VP(), GRID), rtol=1e-12
    )


def test_the_variant_cancels_once_three_values_are_known():
    one, two = (
        jg.unipc(3, variant=variant, lower_order_final=False).rule.past(
            paths.GVP().node(GRID)
        )
        for variant in ("bh1", "bh2")
    )
    apart = np.abs(np.array(one) - np.array(two)).max(axis=0)
    assert np.all(apart[:3] > [-1, 1e-3, 1e-3]) and np.all(apart[3:] < 1e-12)


@pytest.mark.exhaustive
def test_the_corrector_raises_the_order_by_one():
    """In float64 throughout: the errors are below float32 coefficients."""
    path, truth = paths.Linear(), exact(0.9, 0.15)

    def order(sampler, steps):
        errors = [
            np.abs(march(sampler, path, np.linspace(0.9, 0.15, n + 1)) - truth).max()
            for n in (steps, 2 * steps)
        ]
        return np.log2(errors[0] / errors[1])

    assert abs(order(jg.unipc(1, corrector=False), 80) - 1) < 0.15
    assert abs(order(jg.unipc(1), 80) - 2) < 0.15
    assert abs(order(jg.unipc(2, corrector=False), 80) - 2) < 0.15
    assert abs(order(jg.unipc(2, lower_order_final=False), 80) - 3) < 0.15
    # A last step of order 1 has an error of order 2 of its own.
    assert abs(order(jg.unipc(2), 80) - 2) < 0.15
    # Before its first steps show, whose errors are of order 3.
    assert abs(order(jg.unipc(3, lower_order_final=False), 80) - 4) < 0.35


def exact(start, stop):
    """scipy's solution of the linear path's ODE from `NOISE`."""

    def slope(t, x):
        x0, noise = MODEL.moments(x.reshape(NOISE.shape), t, np.zeros(len(NOISE), int))
        return (noise - x0).ravel()

    begin = (NOISE * start).ravel()
    out = solve_ivp(slope, (start, stop), begin, "DOP853", rtol=1e-10, atol=1e-12)
    return out.y[:, -1].reshape(NOISE.shape)


# The ends of the path.

ENDS = {
    "dpmpp_2m": jg.dpmpp_2m(),
    "res_2m": jg.res_2m(),
    "res_2s": jg.res_2s(),
    "res_2s_end": jg.res_2s(1.0),
    "dpmpp_sde_0": jg.dpmpp_sde(0.0),
    "unipc_1": jg.unipc(1),
    "unipc_2": jg.unipc(2),
    "unipc_2_bh1": jg.unipc(2, variant="bh1"),
    "unipc_3": jg.unipc(3),
}


@pytest.mark.parametrize("name", ENDS)
def test_steps_from_pure_noise_and_to_clean_data_are_accurate(name):
    """Both ends are infinite in log-SNR. Ten steps beat twenty of DDIM."""
    truth = exact(1.0, 1e-5)
    few = march(ENDS[name], paths.Linear(), jg.uniform(10))
    many = march(jg.ddim(), paths.Linear(), jg.uniform(20))
    assert np.abs(few - truth).max() < np.abs(many - truth).max()


NOISY = {
    "sde": jg.dpmpp_2m_sde(),
    "sde_heun": jg.dpmpp_2m_sde(solver="heun"),
    "dpmpp_sde": jg.dpmpp_sde(),
    "dpmpp_sde_half": jg.dpmpp_sde(0.5),
    "res_2s_sde": jg.res_2s(0.3, eta=0.7),
}


@pytest.mark.parametrize("name", [*ENDS, *NOISY])
@pytest.mark.parametrize("path", [*PATHS.values(), paths.DDPM()], ids=str)
def test_coefficients_are_finite_from_t_1_to_t_0(name, path):
    sampler = (ENDS | NOISY)[name]
    for steps in (1, 2, 3, 9):
        terms = sampler.coefficients(path, jg.uniform(steps))
        leaves = jax.tree.leaves(terms)
        assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves)
        # The last step returns denoised, with no noise and no past.
        assert (leaves[0][-1], leaves[1][-1]) == (1, 0)
        assert stops(sampler, leaves)


def stops(sampler, leaves):
    """Whether nothing but denoised and noise enters the last step."""
    # With two stages, the rest is of the second, which the last step does not have.
    used = leaves[2:3] if isinstance(sampler, Exponential) else leaves[2:]
    return all(leaf[-1] == 0 for leaf in used)


# The reverse SDE.


def test_without_fresh_noise_the_sde_samplers_are_the_ode_samplers():
    assert jg.dpmpp_2m_sde(0) == jg.dpmpp_2m() and not jg.dpmpp_2m().stochastic
    assert jg.dpmpp_2m_sde(0, solver="heun") == jg.res_2m()
    assert jg.dpmpp_2m_sde(0.5).stochastic and jg.res_2m(0.5).stochastic


@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0])
@every_path
def test_old_and_fresh_noise_together_have_the_variance_of_the_path(path, eta):
    terms = jg.dpmpp_2m_sde(eta).coefficients(path, GRID)
    node = path.node(GRID)
    np.testing.assert_allclose(terms.noise**2 + terms.fresh**2, node.sigma[1:] ** 2)
    decay = (node.sigma / node.alpha)[1:] / (node.sigma / node.alpha)[:-1]
    np.testing.assert_allclose(terms.noise, node.sigma[1:] * decay**eta)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@every_path
def test_res_2m_is_exact_where_denoised_is_a_line_in_log_snr(path, eta):
    """The mean of the SDE with this drift, by quadrature of its solution."""
    grid = GRID[2:5]
    node = path.node(grid)
    l = np.log(node.alpha / node.sigma)  # noqa: E741
    h, x = l[2] - l[1], 0.9

    def line(at):
        return 0.7 - 0.4 * at

    drift = quad(
        lambda r: (1 + eta) * np.exp(-(1 + eta) * (h - r)) * line(l[1] + r), 0, h
    )
    want = node.sigma[2] / node.sigma[1] * np.exp(-eta * h) * x
    want = want + node.alpha[2] * drift[0]

    def got(sampler):
        now, before = line(l[1]), line(l[0])
        noise = (x - node.alpha[1] * now) / node.sigma[1]
        c = sampler.coefficients(path, grid)
        moved = c.denoised[1] * now + c.noise[1] * noise
        return moved + c.past[0][1] * (before - now)

    np.testing.assert_allclose(got(jg.res_2m(eta)), want, rtol=1e-12)
    assert abs(got(jg.dpmpp_2m_sde(eta)) - want) > 1e-4


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (jg.dpmpp_2m_sde(), 2),
        (jg.dpmpp_2m_sde(0.5), 2),
        (jg.res_2m(1.0), 2),
        (jg.ddim(1.0), 1),
    ],
)
def test_the_variance_converges_with_order_two_where_the_target_is_a_gaussian(
    sampler, order
):
    """x and the last denoised stay Gaussian: their covariance is a recursion."""
    mean, variance = 0.7, 0.25

    def errors(steps):
        grid = np.linspace(0.9, 0.2, steps + 1)
        c = sampler.coefficients(paths.Linear(), grid)
        past = getattr(c, "past", [np.zeros(steps)])[0]
        # State (x, denoised of the step before) -> gain @ state + shift + noise.
        middle = np.array([0.1 * mean, 0.0])
        spread = np.diag([0.1**2 * variance + 0.9**2, 0.0])
        for i, t in enumerate(grid[:-1]):
            slope = (1 - t) * variance / ((1 - t) ** 2 * variance + t**2)
            offset = mean * (1 - (1 - t) * slope)  # denoised = slope x + offset
            now = c.denoised[i] - past[i] - c.noise[i] * (1 - t) / t
            gain = np.array([[c.noise[i] / t + now * slope, past[i]], [slope, 0]])
            middle = gain @ middle + np.array([now, 1]) * offset
            spread = gain @ spread @ gain.T + np.diag([c.fresh[i] ** 2, 0])
        exact = np.array([0.8 * mean, 0.8**2 * variance + 0.2**2])
        return np.abs([middle[0], spread[0, 0]] - exact)

    coarse, fine = errors(200), errors(400)
    assert max(coarse[0], fine[0]) < 1e-14  # the mean is exact
    assert abs(np.log2(coarse[1] / fine[1]) - order) < 0.1


# The contract with `generate`.


def test_a_transform_that_sets_the_noise_renoises_with_it():
    """x is what the pair says; the history holds what denoised says."""
    sampler = jg.unipc(2)
    terms = sampler.coefficients(paths.Linear(), GRID)
    c = jax.tree.map(lambda leaf: leaf[3], terms)
    x0, noise, other = (jnp.asarray(NOISE + k, jnp.float32) for k in range(3))
    memory = sampler.init(x0)
    one, after = sampler.step(x0, memory, Pair(x0, noise), c, None)
    two, _ = sampler.step(x0, memory, Pair(x0, other), c, None)
    np.testing.assert_allclose(two - one, GRID[4] * (other - noise), atol=1e-6)
    np.testing.assert_array_equal(after.denoised[0], x0)
    np.testing.assert_array_equal(after.denoised[1], memory.denoised[0])


@pytest.mark.parametrize("history", ["guided", "unconditional", "mixed"])
def test_cfgpp_keeps_the_history_that_is_named(history):
    """The authors' DPM++(2M) in their own terms: sigma alone, in float64."""
    path, sigmas, scale = paths.EDM(5.0), np.array([5.0, 2.5, 1.2, 0.5, 0.2, 0]), 0.6
    rates = {0: 0.7, 1: 0.2}  # denoised is rate x + label / 2

    def predict(x, t, label):
        rate = jnp.where(label == 1, rates[1], rates[0])[:, None]
        return rate * x + label[:, None] / 2

    out = jg.generate(
        jg.Network(predict, "denoised", path), jnp.asarray(NOISE, jnp.float32),
        jnp.ones(len(NOISE), jnp.int32), grid=sigmas / 5.0,
        sampler=jg.dpmpp_2m(history), guidance=jg.cfgpp(scale),
        conds={"null": jnp.zeros(len(NOISE), jnp.int32)},
    )  # fmt: skip
    x, old = 5.0 * NOISE, None
    for i, (sigma, then) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        null = rates[0] * x
        guided = null + scale * (rates[1] * x + 0.5 - null)
        ratio, now = then / sigma, null if history == "unconditional" else guided
        x = guided + ratio * (x - null)
        if old is not None and then > 0:
            bracket = np.log(ratio) / np.log(sigma / sigmas[i - 1]) * (now - old)
            x = x + (1 - ratio) / 2 * bracket
        old = guided if history == "guided" else null
    np.testing.assert_allclose(out, x, rtol=2e-5, atol=2e-5)


def test_without_a_noise_of_its_own_a_history_makes_no_difference():
    first, *others = (
        jg.generate(
            GaussianMixture(
                jnp.asarray(MEANS, jnp.float32), jnp.full(3, 0.5), (0, 0, 0)
            ).network(), jnp.asarray(NOISE, jnp.float32),
            jnp.zeros(len(NOISE), jnp.int32), grid=jg.uniform(6),
            sampler=jg.dpmpp_2m(history),
        )
        for history in ("guided", "unconditional", "mixed")
    )  # fmt: skip
    for other in others:
        np.testing.assert_allclose(other, first, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("sampler", "copies"),
    [
        (jg.dpmpp_2m(), 1),
        (jg.unipc(1, corrector=False), 0),
        (jg.unipc(3, corrector=False), 2),
        (jg.unipc(3), 3),
    ],
)
def test_memory_is_as_many_copies_of_x_as_documented(sampler, copies):
    x = jnp.ones((2, 3), jnp.bfloat16)
    memory = jax.tree.leaves(sampler.init(x))
    assert [(leaf.shape, leaf.dtype) for leaf in memory] == [
        (x.shape, x.dtype)
    ] * copies


@pytest.mark.parametrize("kind", ["velocity", "noise", "denoised"])
@pytest.mark.parametrize("name", ["unipc_3", "res_2s", "dpmpp_sde_0"])
def test_generate_takes_the_same_steps_from_every_kind_of_network(name, kind):
    path = paths.GVP()
    model = GaussianMixture(
        jnp.asarray(MEANS, jnp.float32), jnp.asarray(MODEL.stds, jnp.float32), (0, 0, 0)
    )
    out = jg.generate(
        model.network(kind, path), jnp.asarray(NOISE, jnp.float32),
        jnp.zeros(len(NOISE), jnp.int32), grid=GRID, sampler=ENDS[name],
    )  # fmt: skip
    want = march(ENDS[name], path, GRID)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.unipc(4), "unipc: need order in .*got order=4"),
        (lambda: jg.unipc(variant="bh3"), "unipc: need variant in .*variant='bh3'"),
        (lambda: jg.dpmpp_2m_sde(-1.0), "dpmpp_2m_sde: need a finite eta >= 0"),
        (lambda: jg.dpmpp_2m_sde(solver="x"), "dpmpp_2m_sde: need solver in .*'x'"),
        (lambda: jg.res_2m(np.inf), "res_2m: need a finite eta >= 0, got eta=inf"),
        (lambda: jg.res_2m("a lot"), "res_2m: need a finite eta >= 0, got eta='a lot'"),
        (lambda: jg.res_2s(np.nan), "res_2s: need 0 < c2 <= 1, got c2=nan"),
        (lambda: jg.dpmpp_sde(r=None), "dpmpp_sde: need 0 < r <= 1, got r=None"),
        (lambda: jg.unipc(2.0), "unipc: need order in .*got order=2.0"),
        (lambda: jg.unipc(corrector="no"), "unipc: need corrector True or False"),
        (lambda: jg.dpmpp_2m("null"), "dpmpp_2m: need history in .*history='null'"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_log_snr_is_infinite_where_there_is_no_data_or_no_noise():
    node = paths.GVP().node(np.array([1.0, 0.5, 0.0]))
    np.testing.assert_array_equal(log_snr(node)[[0, 2]], [-np.inf, np.inf])
    np.testing.assert_allclose(log_snr(node)[1], 0.0, atol=1e-12)
