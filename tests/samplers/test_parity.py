"""The deterministic samplers against diffusers' schedulers, run live."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests.lazy import needs

torch, diffusers = needs("torch", "diffusers", reason="parity needs the extra `parity`")

FAST_COMPILE = True
MODEL = GaussianMixture(
    jnp.asarray([[0.8, -0.3, 0.1], [-0.5, 0.6, 0.4]]), jnp.asarray([0.6, 0.5]), (0, 0)
)
NOISE = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
LABEL = jnp.zeros(5, jnp.int32)


def ours(sampler, kind, path, grid):
    network = MODEL.network(kind, path)
    return jg.generate(network, jnp.asarray(NOISE), LABEL, grid=grid, sampler=sampler)


def predict(kind, path, x, t):
    """The same oracle, asked by a torch loop."""
    t = jnp.full(len(x), t, jnp.float32)
    out = MODEL.predict(kind, path, jnp.asarray(x.numpy()), t, LABEL)
    return torch.from_numpy(np.array(out))


def theirs(scheduler, kind, path, time_of, begin):
    x = torch.from_numpy(np.array(begin, np.float32))
    for t in scheduler.timesteps:
        out = predict(kind, path, x, time_of(float(t)))
        x = scheduler.step(out, t, x).prev_sample
    return x.numpy()


BETAS = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)


def discrete(scheduler, steps):
    """Start, grid and clock of a scheduler on the linear-beta table."""
    scheduler.set_timesteps(steps)
    stamps = np.array([float(t) for t in scheduler.timesteps])
    path = paths.DDPM()
    grid = np.append((stamps + 1) / 1000, 0.0)
    begin = NOISE * float(path.node(grid[0]).sigma)
    return path, grid, begin, lambda t: (t + 1) / 1000


def test_the_scaled_linear_table_is_that_of_stable_diffusion():
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    node = paths.PATHS["scaled_linear"]().node(np.arange(1, 1001) / 1000)
    np.testing.assert_allclose(node.alpha**2, scheduler.alphas_cumprod, rtol=3e-5)


@pytest.mark.parametrize(("steps", "shift"), [(28, 3.0), (1, 3.0), (50, 1.7)])
def test_shifted_twice_is_the_grid_of_the_flow_matching_scheduler(steps, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    grid = jg.shifted_twice(steps, shift)
    np.testing.assert_allclose(grid, scheduler.sigmas, atol=1e-6)
    assert steps != 28 or 0.09 < np.abs(grid - jg.shifted(28, 3.0)).max() < 0.092


def test_ddim_is_the_ddim_scheduler():
    scheduler = diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    # A divisor of 1000: the scheduler takes t - 1000 // steps for the next timestep.
    path, grid, begin, clock = discrete(scheduler, 10)
    out = ours(jg.ddim(), "noise", path, grid)
    want = theirs(scheduler, "noise", path, clock, begin)
    np.testing.assert_allclose(out, want, atol=2e-4, rtol=2e-4)


def test_dpmpp_2m_is_the_multistep_scheduler_of_order_two():
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
        timestep_spacing="trailing", final_sigmas_type="zero", lower_order_final=True,
        euler_at_final=False, thresholding=False,
    )  # fmt: skip
    path, grid, begin, clock = discrete(scheduler, 16)
    out = ours(jg.dpmpp_2m(), "noise", path, grid)
    want = theirs(scheduler, "noise", path, clock, begin)
    np.testing.assert_allclose(out, want, atol=5e-4, rtol=5e-4)


def flow(cls):
    scheduler = cls(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(10)
    return scheduler, np.array(scheduler.sigmas.tolist(), np.float64)


def test_euler_is_the_flow_matching_scheduler():
    scheduler, sigmas = flow(diffusers.FlowMatchEulerDiscreteScheduler)
    path = paths.Linear()
    out = ours(jg.euler(), "velocity", path, sigmas)
    want = theirs(scheduler, "velocity", path, lambda t: t / 1000, NOISE * sigmas[0])
    np.testing.assert_allclose(out, want, atol=1e-4, rtol=1e-4)


def test_heun_to_the_end_is_heun2_of_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    path, times = paths.Linear(), torch.linspace(0, 1, 21)  # in SiT's time

    def velocity(t, x):
        return -predict("velocity", path, x, 1 - float(t))

    want = torchdiffeq.odeint(velocity, torch.from_numpy(NOISE), times, method="heun2")
    out = ours(jg.heun(last="heun"), "velocity", path, jg.uniform(20))
    np.testing.assert_allclose(out, want[-1], atol=3e-6)
    assert np.abs(ours(jg.heun(), "velocity", path, jg.uniform(20)) - out).max() > 1e-4


def test_heun_is_the_flow_matching_heun_scheduler():
    scheduler, sigmas = flow(diffusers.FlowMatchHeunDiscreteScheduler)
    path = paths.Linear()
    grid = np.append(np.unique(sigmas)[::-1][:-1], 0.0)
    out = ours(jg.heun(), "velocity", path, grid)
    want = theirs(scheduler, "velocity", path, lambda t: t / 1000, NOISE * grid[0])
    np.testing.assert_allclose(out, want, atol=1e-4, rtol=1e-4)
