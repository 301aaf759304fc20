"""DiT's loss against the textbook in float64, against torch, and at its optimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxguide import losses, paths, samplers
from jaxguide.losses import base, ddpm

FAST_COMPILE = True
PATH = paths.DDPM(20, 1e-3, 0.2)


def textbook(path, x0, x, step, predicted, share):
    """One term of the bound in bits per pixel, as DDPM and its successor write it."""
    betas = np.linspace(path.beta_start, path.beta_end, path.num_timesteps)
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    posterior = betas * (1 - before) / (1 - kept)
    clipped = np.append(posterior[1], posterior[1:])
    at = lambda table: table[step].reshape(-1, 1, 1, 1)  # noqa: E731
    first = at(betas * np.sqrt(before) / (1 - kept))
    second = at((1 - before) * np.sqrt(1 - betas) / (1 - kept))
    guess = (x - np.sqrt(1 - at(kept)) * predicted) / np.sqrt(at(kept))
    true_mean, mean = first * x0 + second * x, first * guess + second * x
    true_log, small = np.log(at(clipped)), np.log(at(clipped))
    log = (share + 1) / 2 * np.log(at(betas)) + (1 - share) / 2 * small
    kl = 0.5 * (
        -1 + log - true_log + np.exp(true_log - log)
        + (true_mean - mean) ** 2 * np.exp(-log)
    )  # fmt: skip
    normal = stats.norm(mean, np.exp(log / 2))
    upper, lower = normal.cdf(x0 + 1 / 255), normal.cdf(x0 - 1 / 255)
    upper = np.where(x0 > 0.999, 1.0, upper)
    lower = np.where(x0 < -0.999, 0.0, lower)
    nll = -np.log(np.maximum(upper - lower, 1e-12))
    nats = np.where(step.reshape(-1, 1, 1, 1) == 0, nll, kl)
    return nats.mean((1, 2, 3)) / np.log(2)


def batch(count, rng):
    x0 = np.clip(rng.normal(0, 0.7, (count, 2, 3, 2)), -1, 1)
    return jnp.asarray(x0, jnp.float32), jnp.zeros(count, jnp.int32)


def smooth(x, t, label):
    """A wrong network that is not far off: noise, and the share of the variance."""
    del label
    t = t.reshape(-1, 1, 1, 1)
    return 0.9 * x * jnp.sqrt(t), jnp.sin(3 * x + t)


def watched(key, x0, label, **options):
    """The loss, and what the network was shown."""

    @jax.jit
    def run(key, x0, label):
        seen = []

        def predict(x, t, label):
            seen.append((x, t, label))
            return smooth(x, t, label)

        loss = losses.ddpm_hybrid(
            predict, (x0, label), key, path=PATH, null_label=1, **options
        )
        return loss, seen[0]

    return run(key, x0, label)


def test_the_loss_is_the_textbook_one(key):
    x0, label = batch(600, np.random.default_rng(0))
    loss, (x, t, _) = watched(key, x0, label)
    step = np.round(np.asarray(t, np.float64) * 20).astype(int) - 1
    predicted, share = (np.asarray(a, np.float64) for a in smooth(x, t, label))
    x, x0 = np.asarray(x, np.float64), np.asarray(x0, np.float64)
    node = PATH.node((step + 1) / 20)
    column = lambda a: a.reshape(-1, 1, 1, 1)  # noqa: E731
    noise = (x - column(node.alpha) * x0) / column(node.sigma)
    simple = np.mean((predicted - noise) ** 2, (1, 2, 3))
    bound = textbook(PATH, x0, x, step, predicted, share)
    assert set(step) == set(range(20)), "every step of the table is drawn"
    np.testing.assert_allclose(loss, simple + 0.001 * 20 * bound, rtol=2e-3)
    alone, _ = watched(key, jnp.asarray(x0, jnp.float32), label, bound_weight=0.0)
    np.testing.assert_allclose(loss - alone, 0.02 * bound, rtol=5e-3, atol=1e-4)


def test_without_its_bound_it_is_the_simple_loss(key):
    x0, label = batch(40, np.random.default_rng(1))
    simple = functools.partial(
        losses.flow_matching,
        lambda x, t, label: smooth(x, t, label)[0],
        path=PATH,
        kind="noise",
        null_label=1,
        t_sampling=ddpm.on_table(20, losses.uniform_t),
    )
    plain = jax.jit(simple)((x0, label), key)
    hybrid, _ = watched(key, x0, label, bound_weight=0.0)
    np.testing.assert_allclose(hybrid, plain, rtol=1e-6)


@jax.jit
def noisy_at(x0, step, key):
    t = jnp.full(len(x0), (step + 1) / PATH.num_timesteps)
    return base.corrupt_at(x0, t, losses.draws(key, len(x0)), path=PATH)


@jax.jit
def bound_of(noise, share, noisy):
    """The mean bound of one share of the variance for all pixels."""
    share = jnp.full_like(noise, share)
    return ddpm.variational_bound(noise, share, noisy, PATH)


@pytest.mark.parametrize("step", [1, 5, 19])
def test_a_perfect_step_has_no_divergence_and_any_other_variance_has(key, step):
    x0, _ = batch(30, np.random.default_rng(2))
    noisy = noisy_at(x0, step, key)
    shares = (-1.0, -0.9, -0.5, 0.0, 1.0)
    bound = [bound_of(noisy.noise, share, noisy) for share in shares]
    np.testing.assert_allclose(bound[0], 0, atol=1e-6)
    assert np.all(np.diff(np.stack(bound), axis=0) > 0)


@pytest.mark.parametrize("step", [3, 12])
def test_the_true_variance_of_gaussian_data_has_the_least_bound(key, step):
    """Data N(0, s^2): the best step has the variance of x_{t-1} given x_t alone."""
    std = 0.5
    x0 = std * jax.random.normal(key, (6000, 1, 1, 1))
    noisy = noisy_at(x0, step, key)
    before, now = PATH.node(np.array([step, step + 1]) / 20)[1:3]
    alpha, sigma = (np.array(pair) for pair in (before, now))
    noise = noisy.x * (sigma[1] / (alpha[1] ** 2 * std**2 + sigma[1] ** 2))
    _, log_small, log_large = (table[step] for table in ddpm._tables(PATH))
    total = alpha**2 * std**2 + sigma**2  # variances of x_{t-1} and x_t
    covariance = alpha[1] / alpha[0] * total[0]
    log_true = np.log(total[0] - covariance**2 / total[1])
    share = 2 * (log_true - log_small) / (log_large - log_small) - 1
    assert -1 < share < 1

    def bound(change):
        return float(bound_of(noise, share + change, noisy).mean())

    assert bound(0.0) < min(bound(-0.15), bound(0.15))


def test_the_bins_of_the_first_step_sum_to_one():
    values = jnp.linspace(-1.0, 1.0, 256)
    for mean, precision in [(0.1, 30.0), (-0.98, 300.0), (0.999, 5.0), (3.0, 2.0)]:
        log = jax.jit(ddpm._log_bin)(values, mean, precision)
        np.testing.assert_allclose(jnp.exp(log).sum(), 1, rtol=1e-4)


def test_the_bound_trains_the_variance_alone(key):
    x0, label = batch(8, np.random.default_rng(3))

    def loss(scale, bound_weight):
        predict = lambda x, t, label: (scale[0] * x, scale[1] * x)  # noqa: E731
        return losses.ddpm_hybrid(
            predict,
            (x0, label),
            key,
            path=PATH,
            null_label=1,
            bound_weight=bound_weight,
        ).mean()

    scale = jnp.array([0.5, 0.1])
    grad = jax.jit(jax.grad(loss))
    without, with_it = (grad(scale, weight) for weight in (0.0, 0.001))
    np.testing.assert_allclose(without[0], with_it[0], rtol=1e-6)
    assert without[1] == 0 and with_it[1] != 0
    assert np.all(np.isfinite(with_it))


def test_tables_agree_with_the_sampler_of_learned_variance():
    grid = np.arange(20, -1, -1) / 20
    terms = samplers.ddpm("learned").coefficients(PATH, grid)
    _, log_small, log_large = ddpm._tables(PATH)
    # Of the last step (the first of the table) the sampler has none: no noise is left.
    np.testing.assert_allclose(terms.log_small[:-1] * 2, log_small[:0:-1], rtol=1e-5)
    np.testing.assert_allclose(terms.log_large[:-1] * 2, log_large[:0:-1], rtol=1e-5)


def test_a_table_of_one_step_is_refused(key):
    x0, label = batch(2, np.random.default_rng(0))
    with pytest.raises(
        ValueError, match="need num_timesteps >= 2, got num_timesteps=1"
    ):
        losses.ddpm_hybrid(smooth, (x0, label), key, path=paths.DDPM(1), null_label=1)


def test_published_table_against_diffusers():
    """Variances and means of DiT's table as another library has them."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        beta_schedule="linear", variance_type="learned_range", clip_sample=False
    )
    path = paths.DDPM()
    unit, log_small, log_large = ddpm._tables(path)
    for step in (1, 10, 500, 999):
        for share in (-1.0, 0.3, 1.0):
            log = theirs._get_variance(step, predicted_variance=torch.tensor(share))
            ours = (share + 1) / 2 * log_large[step]
            ours += (1 - share) / 2 * log_small[step]
            np.testing.assert_allclose(float(log), ours, rtol=2e-4)
        # The mean moves by `unit` for every unit of predicted noise.
        x, zero = torch.zeros(1, 2, 1, 1), torch.zeros(1, 4, 1, 1)
        one = zero.clone()
        one[:, :2] = 1.0
        mean = [
            theirs.step(
                noise, step, x, generator=torch.Generator().manual_seed(0)
            ).prev_sample
            for noise in (zero, one)
        ]
        np.testing.assert_allclose(
            float((mean[0] - mean[1])[0, 0]), unit[step], rtol=2e-3
        )
