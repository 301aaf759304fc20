"""Published checkpoints against diffusers, and against plain PyTorch: forward passes
and whole guided samplings, with the same noise on both sides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import models, samplers
from jaxguide.convert import read_published, write_published
from jaxguide.models.dit import network_time
from jaxguide.sample import build
from jaxguide.samplers import adaptive
from tests.lazy import Lazy, needs

torch, diffusers = needs("torch", "diffusers", reason="parity needs PyTorch's")
diffusers_dit, sit_torch = Lazy("tests.diffusers_dit"), Lazy("tests.sit_torch")

FAST_COMPILE = True
HEADS, EDGE, CLASSES = 2, 8, 5
SCALE, STEPS, BATCH = 1.7, 10, 3
LABELS = np.array([0, 3, 4], np.int32)
X = np.random.default_rng(0).standard_normal((BATCH, EDGE, EDGE, 4)).astype(np.float32)
KEYS = jg.sample_keys(0, np.arange(BATCH))
TIMES = np.array([0.04, 0.5, 1.0], np.float32)
apply = jax.jit(models.apply, static_argnums=0)


@functools.cache
def dit():
    """diffusers' network with the frequencies of DiT, as big as ours will be."""
    config = models.DiTConfig(EDGE, 4, 2, 24, 2, HEADS, CLASSES, learn_sigma=True)
    network = diffusers_dit.their_network(config, std=0.15)
    diffusers_dit.use_official_frequencies(network)
    return network


def published(tmp_path, state, format):
    """Weights of a `.pt` file with this state dict."""
    torch.save(state, tmp_path / "published.pt")
    weights = read_published(tmp_path / "published.pt", format, heads=HEADS)
    return weights._replace(params=jax.tree.map(jnp.asarray, weights.params))


def forward(weights, t, **numbers):
    numbers = {name: jnp.full(BATCH, value) for name, value in numbers.items()}
    return np.asarray(
        apply(
            weights.model,
            weights.params,
            jnp.asarray(X),
            jnp.asarray(t),
            jnp.asarray(LABELS),
            numbers=numbers,
        )
    )


def fresh(index):
    """The draws that our samplers document: each sample's key, folded with the step."""
    shape = X.shape[1:]
    draws = [jax.random.normal(jax.random.fold_in(k, index), shape) for k in KEYS]
    return sit_torch.nchw(np.stack(draws)).double()


def generate(weights, sampler, grid, *guidance):
    """Samples from noise X, guided; NHWC."""
    return np.asarray(
        samplers.generate(
            build.build_network(weights),
            jnp.asarray(X),
            jnp.asarray(LABELS),
            grid=grid,
            sampler=sampler,
            guidance=jg.chain(*guidance),
            conds={"null": jnp.full(BATCH, CLASSES, jnp.int32)},
            sample_keys=KEYS,
        )
    )


def torch_sit(state, channels, lo=0.0, hi=1.0):
    """(x, t) -> output, these channels of it guided where lo <= t <= hi; float64."""

    def velocity(x, t):
        call = functools.partial(sit_torch.forward, state, heads=HEADS)
        times, labels = torch.full((BATCH,), float(t)), torch.from_numpy(LABELS).long()
        with torch.no_grad():
            cond = call(x.float(), times, labels)[:, :4].double()
            if not lo <= t <= hi:
                return cond
            null = call(x.float(), times, torch.full((BATCH,), CLASSES))[:, :4].double()
        guided = null + SCALE * (cond - null)
        return torch.cat([guided[:, :channels], cond[:, channels:]], 1)

    return velocity


def close(actual, expected):
    """Within 1e-4 of the largest value, which must not be tiny."""
    size = np.abs(expected).max()
    assert size > 0.5
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * max(1.0, size))


def test_dit_forward_is_that_of_diffusers(tmp_path):
    weights = published(tmp_path, diffusers_dit.official_state(dit()), "dit")
    timesteps = np.array([0, 417, 999])
    with torch.no_grad():
        expected = dit()(
            sit_torch.nchw(X),
            timestep=torch.from_numpy(timesteps),
            class_labels=torch.from_numpy(LABELS),
        ).sample
    close(forward(weights, (timesteps + 1) / 1000), sit_torch.nhwc(expected))


def test_dit_respacing_feeds_the_published_timesteps():
    times = dict(time_scale=1000.0, time_offset=-1.0)
    config = models.DiTConfig(EDGE, 4, 2, 24, 2, HEADS, CLASSES, **times)
    for steps, first, last in (
        (250, [0, 4, 8], [991, 995, 999]),
        (50, [0, 20, 41, 61, 82], [979, 999]),
        (1000, [0, 1, 2], [997, 998, 999]),
    ):
        grid = jnp.asarray(jg.respaced(steps)[:-1], jnp.float32)
        seen = np.asarray(network_time(config, grid))[::-1]
        assert len(set(seen)) == steps and not np.any(seen % 1)
        assert seen[: len(first)].tolist() == first
        assert seen[-len(last) :].tolist() == last
    # Rounding to whole timesteps must not stop derivatives in time.
    slope = jax.grad(lambda t: network_time(config, t).sum())
    np.testing.assert_array_equal(slope(jnp.array([0.5, 0.50017, 1.0])), 1000.0)


def test_dit_guided_sampling_is_that_of_diffusers(tmp_path, monkeypatch):
    from diffusers.schedulers import scheduling_ddpm

    weights = published(tmp_path, diffusers_dit.official_state(dit()), "dit")
    assert weights.guided_channels == 3 and weights.model.learn_sigma
    scheduler = diffusers.DDPMScheduler(
        variance_type="learned_range", clip_sample=False, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(STEPS)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    drawn = (fresh(i) for i in range(STEPS))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(drawn))
    # Ours starts from sigma(1) times the noise, 2e-5 less than DiT's unit noise.
    start = np.sqrt(1 - float(scheduler.alphas_cumprod[-1]))
    x = start * sit_torch.nchw(X).double()
    both = torch.cat([torch.from_numpy(LABELS), torch.full((BATCH,), CLASSES)])
    for t in scheduler.timesteps:
        with torch.no_grad():
            doubled = torch.cat([x, x]).float()
            output = dit()(doubled, timestep=t[None].repeat(6), class_labels=both)
        cond, null = output.sample.double().chunk(2)
        guided = null[:, :3] + SCALE * (cond[:, :3] - null[:, :3])
        output = torch.cat([guided, cond[:, 3:]], 1)
        x = scheduler.step(output, t, x).prev_sample
    guidance = jg.cfg(SCALE), jg.guided_channels(weights.guided_channels)
    actual = generate(weights, jg.ddpm("learned"), jg.respaced(STEPS), *guidance)
    close(actual, sit_torch.nhwc(x))


@pytest.mark.parametrize("outputs", [4, 8])
def test_sit_forward_is_that_of_plain_pytorch(tmp_path, outputs):
    state = sit_torch.random_state(outputs=outputs)
    weights = published(tmp_path, state, "sit")
    with torch.no_grad():
        output = sit_torch.forward(
            state,
            sit_torch.nchw(X),
            torch.from_numpy(1 - TIMES),
            torch.from_numpy(LABELS).long(),
            heads=HEADS,
        )[:, :4]
    close(forward(weights, TIMES)[..., :4], -sit_torch.nhwc(output))


@pytest.mark.parametrize("number", [None, 1.8])
def test_repa_and_mg_forward_is_that_of_plain_pytorch(tmp_path, number):
    state = sit_torch.random_state(scale_input=number is not None, projectors=1)
    weights = published(tmp_path, state, "repa" if number is None else "mg")
    with torch.no_grad():
        output = sit_torch.forward(
            state,
            sit_torch.nchw(X),
            torch.from_numpy(TIMES),
            torch.from_numpy(LABELS).long(),
            heads=HEADS,
            number=None if number is None else torch.full((BATCH,), number),
        )
    numbers = {} if number is None else {"scale": number}
    close(forward(weights, TIMES, **numbers), sit_torch.nhwc(output))


def test_sit_stochastic_sampling_is_the_published_loop(tmp_path):
    state = sit_torch.random_state(outputs=8)
    velocity = torch_sit(state, channels=3)
    x = sit_torch.nchw(X).double()
    times = [*np.linspace(0, 0.96, STEPS), 1.0]  # 0 is noise; the last step is 0.04
    for i in range(STEPS):
        t, h = times[i], times[i + 1] - times[i]
        v = velocity(x, t)
        score = (t * v - x) / (1 - t)
        x = x + (v + (1 - t) * score) * h
        x = x + np.sqrt(2 * (1 - t) * h) * fresh(i) * (i < STEPS - 1)
    weights = published(tmp_path, state, "sit")
    grid = jg.uniform(STEPS, last_step=0.04)
    guidance = jg.cfg(SCALE), jg.guided_channels(weights.guided_channels)
    close(generate(weights, jg.euler_maruyama(), grid, *guidance), sit_torch.nhwc(x))


def test_repa_stochastic_sampling_is_the_published_loop(tmp_path):
    state = sit_torch.random_state(projectors=1, seed=1)
    velocity = torch_sit(state, channels=4, hi=0.7)
    x = sit_torch.nchw(X).double()
    times = [*np.linspace(1, 0.04, STEPS), 0.0]  # 1 is noise
    for i in range(STEPS):
        t, dt = times[i], times[i + 1] - times[i]
        v = velocity(x, t)
        score = (-(1 - t) * v - x) / t
        x = x + (v - 0.5 * 2 * t * score) * dt
        x = x + np.sqrt(2 * t) * np.sqrt(-dt) * fresh(i) * (i < STEPS - 1)
    weights = published(tmp_path, state, "repa")
    grid = jg.uniform(STEPS, last_step=0.04)
    guidance = jg.cfg(SCALE, t_hi=0.7)
    close(generate(weights, jg.euler_maruyama(), grid, guidance), sit_torch.nhwc(x))


@pytest.mark.exhaustive
def test_sit_dopri5_is_that_of_torchdiffeq(tmp_path):
    torchdiffeq = pytest.importorskip("torchdiffeq", reason="SiT's ODE solver")
    state = sit_torch.random_state(outputs=8)
    velocity = torch_sit(state, channels=3)
    weights = published(tmp_path, state, "sit")
    start, span = sit_torch.nchw(X).double(), torch.tensor([0.0, 1.0]).double()
    tight = dict(rtol=1e-7, atol=1e-7)  # at SiT's, 1e-3, both are 4e-3 from the truth
    solution = torchdiffeq.odeint(
        lambda t, x: velocity(x, t), start, span, method="dopri5", **tight
    )
    found = adaptive.integrate(
        build.build_network(weights),
        jnp.asarray(X),
        jnp.asarray(LABELS),
        guidance=jg.chain(jg.cfg(SCALE), jg.guided_channels(3)),
        conds={"null": jnp.full(BATCH, CLASSES, jnp.int32)},
        per_sample=False,
        **tight,
    )
    close(np.asarray(found.x), sit_torch.nhwc(solution[-1]))


def test_diffusers_own_layout_is_read_written_and_opened_by_it(tmp_path):
    config = models.DiTConfig(EDGE, 4, 2, 24, 2, HEADS, CLASSES, learn_sigma=True)
    theirs = diffusers_dit.their_network(config, std=0.15)
    theirs.save_pretrained(tmp_path / "theirs")
    weights = read_published(tmp_path / "theirs", "diffusers-dit")
    with torch.no_grad():
        expected = theirs(
            sit_torch.nchw(X),
            timestep=torch.tensor([0, 417, 999]),
            class_labels=torch.from_numpy(LABELS),
        ).sample
    times = (np.array([0, 417, 999]) + 1) / 1000
    close(forward(weights, times), sit_torch.nhwc(expected))
    write_published(tmp_path / "ours", weights, "diffusers-dit")
    again = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "ours")
    assert again.config.sample_size == EDGE
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
