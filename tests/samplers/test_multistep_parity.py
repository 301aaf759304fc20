"""The multistep samplers against diffusers' schedulers, run live on one oracle."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from tests.lazy import needs
from tests.march import NOISE, march, predict

torch, diffusers = needs("torch", "diffusers", reason="parity needs the extra `parity`")

FLOW = dict(use_flow_sigmas=True, prediction_type="flow_prediction")
BETAS = dict(
    num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, prediction_type="epsilon"
)
CASES = {"flow": (paths.Linear(), FLOW), "vp": (paths.DDPM(), BETAS)}
GRIDS = {
    "to_clean": np.array([0.98, 0.9, 0.75, 0.6, 0.41, 0.3, 0.18, 0.07, 0.0]),
    # Where diffusers starts its flow grids.
    "from_noise": np.append(1 - 1e-6, jg.uniform(8)[1:]),
    "part": np.linspace(0.95, 0.1, 9),
}
every_case = pytest.mark.parametrize("case", CASES)


def theirs(scheduler, path, grid, fresh=None):
    """The scheduler on our grid, with its noise levels put back in float64."""
    node = path.node(grid)
    flow = scheduler.config.use_flow_sigmas
    levels = node.sigma if flow else node.sigma / node.alpha
    scheduler.set_timesteps(len(grid) - 1)
    scheduler.sigmas = torch.from_numpy(levels)
    scheduler.set_begin_index(0)
    x = torch.from_numpy(NOISE * node.sigma[0])
    for i, stamp in enumerate(scheduler.timesteps):
        x0, noise = predict(path, x.numpy().astype(float), grid[i])
        out = torch.from_numpy(noise - x0 if flow else noise)
        more = {} if fresh is None else {"variance_noise": torch.from_numpy(fresh[i])}
        x = scheduler.step(out, stamp, x, **more).prev_sample
    return x.numpy()


@pytest.mark.parametrize("order", [1, 2, 3])
@every_case
def test_unipc_is_the_unipc_scheduler(order, case):
    path, settings = CASES[case]
    names = ["to_clean", "part"] + ["from_noise"] * (case == "flow")
    for name, variant in itertools.product(names, ("bh1", "bh2")):
        # The scheduler's "bh1" ends in NaN at t = 0: see below.
        grid = GRIDS[name][:-1] if variant == "bh1" else GRIDS[name]
        for final in (True, False):
            if not final and grid[-1] == 0:  # it divides inf by inf there
                continue
            scheduler = diffusers.UniPCMultistepScheduler(
                **settings, solver_order=order, solver_type=variant,
                lower_order_final=final,
            )  # fmt: skip
            sampler = jg.unipc(order, variant=variant, lower_order_final=final)
            want = theirs(scheduler, path, grid)
            out = march(sampler, path, grid)
            about = f"{name} {variant} {final}"
            np.testing.assert_allclose(out, want, rtol=1e-12, err_msg=about)


def test_bh1_reaches_clean_data_where_the_scheduler_ends_in_nan():
    """At t = 0 B(h) = h is infinite there and multiplies a sum of nothing."""
    path, grid = paths.Linear(), GRIDS["to_clean"]
    scheduler = diffusers.UniPCMultistepScheduler(**FLOW, solver_type="bh1")
    assert np.all(np.isnan(theirs(scheduler, path, grid)))
    sampler = jg.unipc(2, variant="bh1", lower_order_final=False)
    before = march(sampler, path, grid[:-1])
    assert np.all(np.isfinite(before))
    out = march(sampler, path, grid)
    np.testing.assert_allclose(out, predict(path, before, grid[-2])[0], rtol=1e-12)


def test_unipc_without_corrector_is_the_scheduler_with_it_disabled():
    scheduler = diffusers.UniPCMultistepScheduler(
        **FLOW, solver_order=3, disable_corrector=list(range(20))
    )
    grid = GRIDS["to_clean"]
    want = theirs(scheduler, paths.Linear(), grid)
    out = march(jg.unipc(3, corrector=False), paths.Linear(), grid)
    np.testing.assert_allclose(out, want, rtol=1e-12)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@every_case
def test_dpmpp_2m_and_res_2m_are_the_multistep_scheduler(solver, stochastic, case):
    """diffusers computes in float32 here, whatever it is given."""
    path, settings = CASES[case]
    kind = "sde-dpmsolver++" if stochastic else "dpmsolver++"
    grid = GRIDS["to_clean"]
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **settings, algorithm_type=kind, solver_order=2, solver_type=solver,
        lower_order_final=True, final_sigmas_type="zero",
    )  # fmt: skip
    eta = float(stochastic)
    sampler = jg.res_2m(eta) if solver == "heun" else jg.dpmpp_2m_sde(eta)
    draws = np.random.default_rng(0).normal(size=(len(grid) - 1, *NOISE.shape))
    fresh = draws if stochastic else None
    want = theirs(scheduler, path, grid, fresh)
    out = march(sampler, path, grid, fresh=fresh)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)


def test_generate_feeds_the_sde_samplers_the_noise_of_each_sample():
    """The whole library in float32, on the draws that it documents."""
    from jaxguide.oracle import GaussianMixture
    from tests.march import MEANS, MODEL

    grid, count = GRIDS["to_clean"], len(NOISE)
    keys = jg.sample_keys(0, jnp.arange(count))
    fresh = np.array(
        [
            [jax.random.normal(jax.random.fold_in(k, i), NOISE.shape[1:]) for k in keys]
            for i in range(len(grid) - 1)
        ]
    )
    model = GaussianMixture(
        jnp.asarray(MEANS, jnp.float32), jnp.asarray(MODEL.stds, jnp.float32), (0, 0, 0)
    )
    out = jg.generate(
        model.network(), jnp.asarray(NOISE, jnp.float32), jnp.zeros(count, jnp.int32),
        grid=grid, sampler=jg.dpmpp_2m_sde(), sample_keys=keys,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **FLOW, algorithm_type="sde-dpmsolver++"
    )
    want = theirs(scheduler, paths.Linear(), grid, fresh.astype(float))
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
