"""Samplers reach the target, and stochastic steps are the published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests.contract.common import rest

FAST_COMPILE = True
PATHS = {
    "linear": paths.Linear(),
    "gvp": paths.GVP(),
    "vp": paths.VP(),
    "ddpm": paths.DDPM(),
    "edm": paths.EDM(20.0),
}
SAMPLERS = {
    "euler": (jg.euler(), 60),
    "heun": (jg.heun(), 25),
    "dpmpp_2m": (jg.dpmpp_2m(), 30),
    "dpmpp_2m_sde": (jg.dpmpp_2m_sde(), 60),
    "dpmpp_sde": (jg.dpmpp_sde(), 40),
    "dpmpp_sde_half": (jg.dpmpp_sde(0.5), 40),
    "res_2m": (jg.res_2m(0.5), 60),
    "res_2s": (jg.res_2s(), 25),
    "unipc": (jg.unipc(), 30),
    "ddim": (jg.ddim(), 60),
    "ddim_half": (jg.ddim(0.5), 100),
    "ddpm": (jg.ddpm(), 250),
    "euler_maruyama": (jg.euler_maruyama(), 250),
    "sde_heun_half": (jg.sde_heun(scale=0.5), 150),
}
COUNT = 4000
MODEL = GaussianMixture(
    jnp.asarray([[0.8, -0.3], [-0.5, 0.6]]), jnp.asarray([0.6, 0.5]), (0, 0)
)


def grid_for(name, steps):
    """Where each path is well resolved by few steps."""
    if name == "ddpm":
        return jg.respaced(steps)
    if name in ("vp", "edm"):
        return jg.karras(steps, PATHS[name], sigma_min=0.02, sigma_max=19.0)
    return jg.uniform(steps)


def cases():
    """Every sampler on one path; on every path in the exhaustive run."""
    for name, (sampler, _) in SAMPLERS.items():
        for path in PATHS:
            shown = "ddpm" if sampler.stochastic else "linear"
            implied = name.endswith("_half") or path != shown
            marks = [pytest.mark.exhaustive] if implied else []
            yield pytest.param(name, path, marks=marks, id=f"{name}-{path}")


@pytest.mark.parametrize(("name", "path"), cases())
def test_samples_have_the_mean_and_covariance_of_the_data(name, path):
    sampler, steps = SAMPLERS[name]
    keys = jg.sample_keys(3, jnp.arange(COUNT))
    out = jg.generate(
        MODEL.network(path=PATHS[path]), jg.initial_noise(keys, (2,)),
        jnp.zeros(COUNT, jnp.int32), grid=grid_for(path, steps), sampler=sampler,
        sample_keys=keys,
    )  # fmt: skip
    mean, covariance = MODEL.moments()
    # Four standard errors of 4000 samples, and 3 % for the discretisation.
    spread = np.sqrt(np.diag(covariance).max())
    error = 4 * spread / np.sqrt(COUNT)
    np.testing.assert_allclose(np.mean(out, axis=0), mean, atol=error + 0.03 * spread)
    got = np.cov(np.asarray(out, np.float64).T)
    bound = 4 * spread**2 * np.sqrt(2 / COUNT) + 0.04 * spread**2
    np.testing.assert_allclose(got, covariance, atol=bound)


def run(sampler, network, grid, *, noise, **options):
    label = jnp.zeros(len(noise), jnp.int32)
    return jg.generate(network, noise, label, grid=grid, sampler=sampler, **options)


@pytest.fixture(scope="module")
def batch():
    keys = jg.sample_keys(0, jnp.arange(8))
    return dict(sample_keys=keys, noise=jg.initial_noise(keys, (2,)))


def fresh_noise(keys, index, shape=(2,)):
    """The draws that the samplers document: each sample's key, folded with the step."""
    draws = [jax.random.normal(jax.random.fold_in(k, index), shape) for k in keys]
    return np.asarray(jnp.stack(draws), np.float64)


@pytest.mark.parametrize("path", [paths.Linear(), paths.DDPM()])
def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(path, batch):
    network, grid = MODEL.network(path=path), jg.respaced(7)
    one = run(jg.ddim(1.0), network, grid, **batch)
    two = run(jg.ddpm("small"), network, grid, **batch)
    np.testing.assert_array_equal(one, two)


def eps64(x, alpha_bar):
    """The oracle's noise prediction at a DDPM timestep, in float64."""
    means, stds = (
        np.asarray(MODEL.means, np.float64),
        np.asarray(MODEL.stds, np.float64),
    )
    total = alpha_bar * stds**2 + 1 - alpha_bar
    gap = x[:, None] - np.sqrt(alpha_bar) * means[None]
    logs = -(gap**2).sum(-1) / (2 * total) - np.log(total)
    share = np.exp(logs - logs.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return np.sqrt(1 - alpha_bar) * (share[:, :, None] * gap / total[:, None]).sum(1)


def p_sample_loop(x, keys, steps, variance, learned):
    """DiT's ancestral sampling: respaced betas, posterior mean, learned range."""
    alpha_bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    used = [round(i * 999 / (steps - 1)) for i in range(steps)]
    betas, last = [], 1.0
    for i in used:
        betas.append(1 - alpha_bars[i] / last)
        last = alpha_bars[i]
    betas = np.array(betas)
    bars = np.cumprod(1 - betas)
    bars_prev = np.append(1.0, bars[:-1])
    posterior = betas * (1 - bars_prev) / (1 - bars)
    log_clipped = np.log(np.append(posterior[1], posterior[1:]))
    coef1 = betas * np.sqrt(bars_prev) / (1 - bars)
    coef2 = (1 - bars_prev) * np.sqrt(1 - betas) / (1 - bars)
    for count, i in enumerate(reversed(range(steps))):
        eps = eps64(x, bars[i])
        x0 = np.sqrt(1 / bars[i]) * x - np.sqrt(1 / bars[i] - 1) * eps
        mean = coef1[i] * x0 + coef2[i] * x
        fraction = (learned(x) + 1) / 2
        log_variance = {
            "small": log_clipped[i],
            "large": np.log(betas[i]),
            "learned": fraction * np.log(betas[i]) + (1 - fraction) * log_clipped[i],
        }[variance]
        noise = fresh_noise(keys, count) if i > 0 else 0.0
        x = mean + np.exp(0.5 * log_variance) * noise
    return x


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("steps", [10, *rest(50)])
def test_ddpm_on_the_respaced_table_is_the_p_sample_of_dit(variance, steps, batch):
    def predict(model, x, t, label):
        out = model.predict("noise", paths.DDPM(), x, t, label)
        return out, jnp.sin(3 * x)

    network = jg.Network(jax.tree_util.Partial(predict, MODEL), "noise", paths.DDPM())
    out = run(jg.ddpm(variance), network, jg.respaced(steps), **batch)
    # The library starts from sigma(1) noise, DiT from unit noise.
    begin = np.asarray(batch["noise"], np.float64) * float(paths.DDPM().node(1.0).sigma)
    want = p_sample_loop(
        begin, batch["sample_keys"], steps, variance, lambda x: np.sin(3 * x)
    )
    np.testing.assert_allclose(out, want, atol=2e-3, rtol=1e-3)


def velocity64(x, t):
    """The oracle's velocity on SiT's linear path, in SiT's time: t = 1 is data."""
    means, stds = (
        np.asarray(MODEL.means, np.float64),
        np.asarray(MODEL.stds, np.float64),
    )
    total = t**2 * stds**2 + (1 - t) ** 2
    gap = x[:, None] - t * means[None]
    logs = -(gap**2).sum(-1) / (2 * total) - np.log(total)
    share = np.exp(logs - logs.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share, total = share[:, :, None], total[:, None]
    data = (share * (means[None] + t * stds[:, None] ** 2 / total * gap)).sum(1)
    noise = (share * (1 - t) / total * gap).sum(1)
    return data - noise


SIT_FORMS = {
    "sigma": lambda t: 1 - t,
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "decreasing": lambda t: 0.25 * (np.cos(np.pi * t) + 1) ** 2,
    "increasing-decreasing": lambda t: np.sin(np.pi * t) ** 2,
    # (alpha' / alpha) sigma^2 - sigma sigma'
    "sbdm": lambda t: (1 - t) ** 2 / t + (1 - t),
}


def sit(x, keys, grid, form, last, norm=1.0, heun=False):
    """SiT's samplers of its SDE and their last steps, in SiT's own time."""

    def diffusion(t):
        if form == "decreasing-inside":  # `norm` as transport/path.py has it
            return 0.25 * (norm * np.cos(np.pi * t) + 1) ** 2
        return norm * SIT_FORMS[form](t)

    def drift(x, t):
        v = velocity64(x, t)
        return v + diffusion(t) * (t * v - x) / (1 - t)

    times = 1 - grid
    for i, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        v, w, h = velocity64(x, t), diffusion(t), s - t
        score = (t * v - x) / (1 - t)
        noisy = last == "noisy" or i < len(times) - 2
        if noisy and heun:
            x = x + np.sqrt(2 * w * h) * fresh_noise(keys, i)
            slope = drift(x, t)
            x = x + h / 2 * (slope + drift(x + h * slope, s))
        elif noisy:
            x = x + (v + w * score) * h + np.sqrt(2 * w * h) * fresh_noise(keys, i)
        elif last == "mean":
            x = x + (v + w * score) * h
        elif last == "tweedie":
            x = x / t + (1 - t) ** 2 / t * score
        else:
            x = x + v * h
    return x


LASTS = [("sigma", "tweedie"), ("sigma", "euler")]
SHOWN = [("sbdm", "mean"), ("sigma", "mean"), ("sigma", "tweedie")]


@pytest.mark.parametrize(
    ("form", "last"),
    [
        pytest.param(*pair, marks=[] if pair in SHOWN else pytest.mark.exhaustive)
        for pair in [*((form, "mean") for form in SIT_FORMS), *LASTS]
    ],
)
def test_euler_maruyama_is_the_loop_of_sit(form, last, batch):
    grid = jg.uniform(20, last_step=0.04)
    if form == "sbdm":
        grid = np.append(np.linspace(0.9, 0.04, 15), 0.0)
    out = run(jg.euler_maruyama(form, last=last), MODEL.network(), grid, **batch)
    begin = np.asarray(batch["noise"], np.float64) * grid[0]
    want = sit(begin, batch["sample_keys"], grid, form, last)
    np.testing.assert_allclose(out, want, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "end", "settings"),
    [
        (jg.euler_maruyama, 0.0, dict(form="decreasing-inside", scale=0.6)),
        (jg.euler_maruyama, 0.0, dict(form="sigma", last="noisy")),
        (jg.sde_heun, 0.0, dict(form="sigma", last="mean")),
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in [
                (jg.euler_maruyama, 0.0, dict(form="decreasing", scale=0.6)),
                (jg.sde_heun, 0.0, dict(form="linear", last="tweedie", scale=0.5)),
                (jg.sde_heun, 0.0, dict(form="sigma", last="euler")),
                (jg.sde_heun, 0.2, dict(form="decreasing-inside", last="noisy")),
            ]
        ),
    ],
)
def test_the_options_of_sit_are_its_loops(make, end, settings, batch):
    grid = np.linspace(1, end, 13)
    out = run(make(**settings), MODEL.network(), grid, **batch)
    loop = dict(last="mean", norm=settings.get("scale", 1.0)) | settings
    loop.pop("scale", None)
    begin = np.asarray(batch["noise"], np.float64)
    keys, heun = batch["sample_keys"], make is jg.sde_heun
    want = sit(begin, keys, grid, heun=heun, **loop)
    np.testing.assert_allclose(out, want, atol=3e-4, rtol=1e-4)


def test_the_scale_multiplies_the_diffusion(batch):
    """Quartering w halves the noise of one step from the same point."""
    grid = np.array([0.5, 0.45, 0.0])
    keys = batch["sample_keys"]
    begin = np.asarray(batch["noise"], np.float64) * 0.5
    v = velocity64(begin, 0.5)
    score = (0.5 * v - begin) / 0.5
    c = jg.euler_maruyama("constant", scale=0.25).coefficients(paths.Linear(), grid)
    x0, eps = begin + 0.5 * v, -0.5 * score
    want = (
        begin + (v + 0.25 * score) * 0.05 + np.sqrt(0.5 * 0.05) * fresh_noise(keys, 0)
    )
    got = c.denoised[0] * x0 + c.noise[0] * eps + c.fresh[0] * fresh_noise(keys, 0)
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_euler_maruyama_has_weak_order_one():
    """Linear drift: mean and variance of one Gaussian follow a known recursion."""
    model = GaussianMixture(jnp.asarray([[0.7]]), jnp.asarray([0.5]), (0,))
    network = model.network()

    def moments(steps):
        grid = np.linspace(0.8, 0.2, steps + 1)
        c = jg.euler_maruyama(last="mean").coefficients(
            network.path, np.append(grid, 0.0)
        )
        mean, variance = 0.2 * 0.7, 0.2**2 * 0.25 + 0.8**2
        for i, t in enumerate(grid[:-1]):
            total = (1 - t) ** 2 * 0.25 + t**2
            gain = np.array([(1 - t) * 0.25, t]) / total  # of denoised, noise
            rate = c.denoised[i] * gain[0] + c.noise[i] * gain[1]
            mean = c.denoised[i] * 0.7 + rate * (mean - (1 - t) * 0.7)
            variance = rate**2 * variance + c.fresh[i] ** 2
        return np.array([mean - 0.8 * 0.7, variance - (0.8**2 * 0.25 + 0.2**2)])

    coarse, fine = np.abs(moments(100)), np.abs(moments(200))
    assert coarse[0] < 1e-9 and coarse[1] < 0.02
    assert abs(np.log2(coarse[1] / fine[1]) - 1) < 0.1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.ddim(1.5), "ddim: need 0 <= eta <= 1, got eta=1.5"),
        (
            lambda: jg.ddpm("tiny"),
            "ddpm: need variance in .*'learned'.*variance='tiny'",
        ),
        (lambda: jg.euler_maruyama("cosine"), "euler_maruyama: need form in"),
        (lambda: jg.euler_maruyama(last="none"), "need last in .*got last='none'"),
        (lambda: jg.euler_maruyama(scale=0.0), "need a finite scale > 0.*scale=0.0"),
        (lambda: jg.euler_maruyama(scale=np.inf), "euler_maruyama: .*scale=inf"),
        (lambda: jg.sde_heun(scale=np.nan), "sde_heun: need a finite.*scale=nan"),
        (lambda: jg.ddim("much"), "ddim: need 0 <= eta <= 1, got eta='much'"),
        (lambda: jg.ddim(np.nan), "ddim: need 0 <= eta <= 1, got eta=nan"),
        (lambda: jg.heun("both"), "heun: need last in .*got last='both'"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("path", [paths.Linear(), paths.GVP()])
def test_an_infinite_diffusion_is_refused(path, batch):
    with pytest.raises(ValueError, match="need a finite diffusion.*'sbdm' at t=1.0"):
        run(jg.euler_maruyama("sbdm"), MODEL.network(path=path), jg.uniform(5), **batch)


def test_a_learned_variance_needs_a_network_that_has_one(batch):
    with pytest.raises(ValueError, match="ddpm: need a network with learned variance"):
        run(jg.ddpm("learned"), MODEL.network(), jg.uniform(3), **batch)


@pytest.mark.parametrize(
    "sampler", [jg.ddpm(), jg.euler_maruyama(), jg.ddim(0.3), jg.dpmpp_sde(0.1)]
)
def test_a_stochastic_sampler_needs_keys(sampler, batch):
    with pytest.raises(ValueError, match="need sample_keys .*jg.sample_keys"):
        run(
            sampler,
            MODEL.network(),
            jg.uniform(3),
            noise=batch["noise"],
            sample_keys=None,
        )


@pytest.mark.parametrize("sampler", [jg.euler(), jg.unipc()])
def test_a_sampler_of_one_stage_has_no_corrector(sampler):
    with pytest.raises(ValueError, match="has no corrector"):
        sampler.correct(None, None, None, None, None)


@pytest.mark.parametrize("kind", ["noise", "score"])
@pytest.mark.parametrize("path", [paths.Linear(), paths.GVP()])
def test_a_noise_network_cannot_start_where_no_data_is_left(kind, path, batch):
    network = MODEL.network(kind, path)
    with pytest.raises(ValueError, match=f"need alpha > 0 .* {kind} network"):
        run(jg.euler(), network, jg.uniform(4), **batch)
