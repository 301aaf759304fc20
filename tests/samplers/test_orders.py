"""Orders of convergence, measured on the oracle in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests import reference as ref
from tests.contract.common import EXHAUSTIVE

FAST_COMPILE = True
START, STOP = 0.9, 0.15
CASES = [
    ("euler", jg.euler(), 1, (40, 80)),
    ("ddim", jg.ddim(), 1, (40, 80)),
    ("heun", jg.heun(), 2, (24, 48)),
    ("dpmpp_2m", jg.dpmpp_2m(), 2, (40, 80)),
    ("res_2m", jg.res_2m(), 2, (40, 80)),
    ("res_2s", jg.res_2s(), 2, (24, 48)),
    ("res_2s(1.0)", jg.res_2s(1.0), 2, (24, 48)),
    ("dpmpp_sde(0.0)", jg.dpmpp_sde(0.0), 2, (24, 48)),
    ("unipc(1)", jg.unipc(1), 2, (40, 80)),
    (
        "unipc(2, lower_order_final=False)",
        jg.unipc(2, lower_order_final=False),
        3,
        (80, 160),
    ),
]
PATHS = {
    "linear": paths.Linear(),
    "gvp": paths.GVP(),
    "vp": paths.VP(),
    "edm": paths.EDM(5.0),
}
MEANS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]])
STDS = np.array([0.5, 0.6, 0.4])
NOISE = np.array([[0.3, -0.8], [1.1, 0.4], [-0.6, -0.2], [0.1, 1.5]])


def exact(name):
    """scipy's eighth-order solution of the probability-flow ODE, per path.

    Along the ray x = scale(t) z every Gaussian path is the linear one with
    ratio = sigma / alpha: z' = (z - E[x0 | z]) / ratio, z = x / alpha.
    """
    path = PATHS[name]
    model = ref.Mixture(MEANS, STDS, np.zeros(3, int), np.zeros(0), 0)
    ratio = [float(path.node(t).sigma / path.node(t).alpha) for t in (START, STOP)]
    scale = [float(path.node(t).alpha) for t in (START, STOP)]

    def slope(r, z):
        z = z.reshape(NOISE.shape)
        t = r / (1 + r)  # the linear path's time of this ratio; its alpha is 1 - t
        x0, _ = model.moments((1 - t) * z, t, np.zeros(len(z), int))
        return ((z - x0) / r).ravel()

    begin = NOISE * float(path.node(START).sigma) / scale[0]
    out = solve_ivp(slope, ratio, begin.ravel(), "DOP853", rtol=1e-10, atol=1e-12)
    return scale[1] * out.y[:, -1].reshape(NOISE.shape)


exact = functools.cache(exact)


def error(name, sampler, steps, kind="velocity"):
    """Largest error of a float64 run of the library."""
    with jax.enable_x64(True):
        model = GaussianMixture(jnp.asarray(MEANS), jnp.asarray(STDS), (0, 0, 0))
        noise = jnp.asarray(NOISE)
        # Coefficients are float32 by design, 6e-8 per step: below the errors measured.
        out = jg.generate(
            model.network(kind, PATHS[name]), noise, jnp.zeros(4, jnp.int32),
            grid=np.linspace(START, STOP, steps + 1), sampler=sampler,
        )  # fmt: skip
        assert out.dtype == jnp.float64
        return float(np.abs(np.asarray(out) - exact(name)).max())


def measured(name, sampler, steps, kind="velocity"):
    """log2 of the gain from halving the step."""
    return np.log2(
        error(name, sampler, steps[0], kind) / error(name, sampler, steps[1], kind)
    )


def cases():
    """Every solver on the linear path; on all paths in the exhaustive run.

    Heun stands for the rest there: a path is known by its coefficients alone.
    """
    for case in CASES:
        for path in PATHS:
            shown = path == "linear" or case[0] == "heun"
            marks = [] if shown else EXHAUSTIVE
            yield pytest.param(case, path, marks=marks, id=f"{path}-{case[0]}")


@pytest.mark.parametrize(("case", "path"), cases())
def test_halving_the_step_divides_the_error_by_two_to_the_order(case, path):
    _, sampler, order, steps = case
    assert abs(measured(path, sampler, steps) - order) < 0.35


def test_dpmpp_2m_rises_to_order_two_on_vp_as_the_grid_gets_finer():
    """1.66, 1.82, 1.92, 1.96: what it lacks at 40 steps is not of a lower order."""
    grids = [(40, 80), (80, 160), (160, 320), (320, 640)]
    orders = [measured("vp", jg.dpmpp_2m(), steps) for steps in grids]
    assert orders == sorted(orders)
    assert abs(orders[-1] - 2) < 0.06


@pytest.mark.parametrize("kind", ["denoised", "noise"])
def test_the_order_does_not_depend_on_what_the_network_predicts(kind):
    assert abs(measured("gvp", jg.heun(), (24, 48), kind) - 2) < 0.35


def test_the_second_order_samplers_are_better_at_equal_evaluations():
    first = error("linear", jg.euler(), 48)
    assert error("linear", jg.heun(), 24) < first / 5
    assert error("linear", jg.dpmpp_2m(), 48) < first / 5
