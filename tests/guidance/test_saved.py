"""Saved evaluations: CFG-Cache against diffusers, LinearAG and residual CFG by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import cfg_trajectories, fit_linear_ag
from jaxguide.guidance._faster_cache import low_pass
from jaxguide.samplers import sweep
from tests import transforms as tf
from tests.contract.common import rest

FAST_COMPILE = True
MODEL = tf.mixture()
LABEL, NULL = tf.labels()["cond"], tf.labels()["null"]
GRID = np.linspace(0.9, 0.1, 9)


def sample(guidance, sampler=None, grid=GRID, network=None, noise=None, **conds):
    network = tf.oracle(MODEL) if network is None else network
    noise = tf.start() if noise is None else noise
    sampler = jg.euler() if sampler is None else sampler
    with jax.disable_jit():
        return jg.generate(
            network, noise, LABEL[: len(noise)], grid=grid, sampler=sampler,
            guidance=guidance, conds={"null": NULL[: len(noise)], **conds},
        )  # fmt: skip


# CFG-Cache


def test_a_cache_of_period_one_is_cfg():
    for sampler in (jg.euler(), jg.heun()):
        cached = sample(jg.cfg_cache(2.5, every=1), sampler)
        np.testing.assert_array_equal(cached, sample(jg.cfg(2.5), sampler))


SIZE = 11  # odd, with a disk of radius 2


def field(t, label):
    """A picture [2, SIZE, SIZE] with all frequencies that changes with t and label."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    waves = [
        np.sin(0.7 * k * rows + label * k + 3 * t) * np.cos(0.9 * k * columns - 2 * t)
        for k in (0.3, 1.0, 2.5, 4.0)
    ]
    return np.stack([sum(waves), waves[1] - waves[3] + label])


def tabulated(x, t, label):
    """The field as a network; x does not matter."""
    del x
    rows = jnp.arange(SIZE, dtype=jnp.float32)[:, None]
    columns = jnp.arange(SIZE, dtype=jnp.float32)[None]

    def one(t, label):
        waves = [
            jnp.sin(0.7 * k * rows + label * k + 3 * t)
            * jnp.cos(0.9 * k * columns - 2 * t)
            for k in (0.3, 1.0, 2.5, 4.0)
        ]
        return jnp.stack([sum(waves), waves[1] - waves[3] + label])

    return jax.vmap(one)(t, label.astype(jnp.float32))


@pytest.mark.exhaustive
def test_cfg_cache_is_the_hook_of_diffusers():
    torch = pytest.importorskip("torch")
    hooks = pytest.importorskip("diffusers.hooks.faster_cache")
    grid, now = np.linspace(1.0, 0.0, 21), [0.0]
    ranges = {"low": (99, 901), "high": (-1, 301)}

    def factor(name):
        low, high = ranges[name]
        return lambda module: 1.1 if low < 1000 * now[0] < high else 1.0

    def forward(hidden_states):
        both = np.stack([field(now[0], label) for label in (3.0, 0.0)])
        return torch.from_numpy(both if len(hidden_states) == 2 else both[1:])

    hook = hooks.FasterCacheDenoiserHook(
        4, (-1, 641), "BCHW", False, ["hidden_states"], lambda: 1000 * now[0],
        factor("low"), factor("high"),
    )  # fmt: skip
    hook.initialize_hook(None)
    hook.fn_ref = types.SimpleNamespace(original_forward=forward)
    x = np.zeros((2, SIZE, SIZE))
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        now[0] = t
        out = hook.new_forward(None, hidden_states=torch.zeros(2, 2, SIZE, SIZE))
        null, raw = out.numpy()
        x = x + (s - t) * (null + 3.0 * (raw - null))
    network = jg.Network(tabulated)
    out = sample(
        jg.cfg_cache(3.0, every=4, axes=(2, 3)), grid=grid, network=network,
        noise=jnp.zeros((1, 2, SIZE, SIZE)),
    )  # fmt: skip
    np.testing.assert_allclose(out[0], x, rtol=2e-4, atol=2e-5)
    plain = sample(
        jg.cfg(3.0), grid=grid, network=network, noise=jnp.zeros((1, 2, SIZE, SIZE))
    )
    assert np.abs(plain[0] - x).max() > 0.05


@pytest.mark.parametrize("shape", [(2, 8, 12), (2, 9, 7, 3)])
def test_the_low_band_is_the_shifted_disk(shape):
    x = np.random.default_rng(0).normal(size=shape)
    rows, columns = shape[1:3]
    y, z = np.mgrid[:rows, :columns]
    radius = min(rows, columns) // 5
    disk = (y - rows // 2) ** 2 + (z - columns // 2) ** 2 <= radius**2
    spectrum = np.fft.fftshift(np.fft.fft2(x, axes=(1, 2)), axes=(1, 2))
    disk = disk.reshape(1, rows, columns, *(1,) * (len(shape) - 3))
    want = np.fft.ifft2(np.fft.ifftshift(spectrum * disk, axes=(1, 2)), axes=(1, 2))
    out = low_pass(jnp.asarray(x, jnp.float32), (1, 2))
    np.testing.assert_allclose(out, want.real, atol=1e-5)
    assert np.abs(want.imag).max() < 1e-12


def test_cfg_cache_evaluates_in_its_turn_and_where_it_is_too_noisy():
    guidance = jg.cfg_cache(2.0, every=3, t_reuse=0.5, t_hi=0.9)
    grid = np.array([1.0, 0.8, 0.6, 0.49, 0.4, 0.3, 0.2, 0.1, 0.0])
    live = [guidance.live(t, i) for i, t in enumerate(grid[:-1])]
    # In the window and: noisy, noisy, step 3, -, -, step 6, -.
    assert live == [False, True, True, True, False, False, True, False]


def test_a_second_stage_sees_the_same_factors_as_its_step():
    part = jg.chain(jg.cfg_cache(2.0, every=5)).at(jnp.float32(0.2)).parts[0]
    x = tf.start()
    state = part.init(x)._replace(ready=jnp.ones((), bool))
    once = part._grown(state, jnp.int32(3))
    again = part._grown(once, jnp.int32(3))
    later = part._grown(once, jnp.int32(4))
    gains = [float(each.low) for each in (once, again, later)]
    np.testing.assert_allclose(gains, [1.1, 1.1, 1.21], rtol=1e-6)


def test_nothing_is_guided_by_a_difference_that_was_never_saved():
    late = jg.cfg_cache(2.0, every=3, t_reuse=0.6, t_hi=0.55)
    grid = np.array([0.9, 0.5, 0.4])  # the window opens at step 1, a reused one
    np.testing.assert_array_equal(sample(late, grid=grid), sample(None, grid=grid))


def test_guide_counts_steps_at_host_times():
    probe = tf.toy_probe()

    def predict(x, t, label):  # given one time for all samples
        return probe.network().predict(x, jnp.broadcast_to(t, len(x)), label)

    guided = jg.guide(predict, jg.cfg_cache(2.0, every=2), batched=False)
    x = tf.start()
    state = guided.init(x)
    for t in (0.5, 0.4, 0.3, 0.2):
        t = np.float32(t).item()
        _, state = guided(x, t, LABEL, state, conds={"null": NULL})
    jax.effects_barrier()
    assert len(probe.calls) == 4 + 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"every": 0}, "cfg_cache: need an integer every >= 1"),
        ({"axes": (1,)}, "cfg_cache: need two different axes"),
        ({"axes": (1, 1)}, "cfg_cache: need two different axes"),
        ({"space": "any"}, "cfg_cache: need a space other than"),
    ],
)
def test_bad_caches_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        jg.cfg_cache(2.0, **arguments)


def test_data_without_rows_and_columns_is_refused():
    network = jg.Network(lambda x, t, c: x)
    noise = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="cfg_cache: need two spatial axes"):
        sample(jg.cfg_cache(2.0), network=network, noise=noise)


# LinearAG


def test_least_squares_finds_the_combination():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(6, 5, 7))
    null = rng.normal(size=(6, 5, 7))
    for i in range(2, 6):
        null[i] = (
            0.5 * raw[i] - 0.2 * raw[i - 1] + 0.6 * null[i - 1] + 0.1 * null[i - 2]
        )
    table = fit_linear_ag(raw, null, history=2)
    for row in table[2:]:
        np.testing.assert_allclose(row, [[0.5, -0.2], [0.6, 0.1]], atol=1e-6)
    assert table[0, 0, 1] == table[0, 1, 0] == 0


def test_linear_ag_of_period_one_is_cfg():
    table = np.ones((8, 2, 2))
    cached = sample(jg.linear_ag(2.5, table, every=1))
    np.testing.assert_array_equal(cached, sample(jg.cfg(2.5)))


@pytest.mark.exhaustive  # regression on samples; the formula is checked above
def test_fitted_coefficients_stay_near_cfg_at_half_the_null_evaluations():
    network, scale, grid = MODEL.network(), 2.0, np.linspace(0.9, 0.1, 17)
    noise = jax.random.normal(jax.random.key(5), (32, 2, 2))
    label = jnp.arange(32, dtype=jnp.int32) % 3
    recorded = cfg_trajectories(
        network, noise, label, jnp.full(32, 3, jnp.int32), grid=grid, scale=scale
    )
    table = fit_linear_ag(*recorded, history=3)
    want = sample(jg.cfg(scale), jg.ddim(), grid)
    out = sample(jg.linear_ag(scale, table), jg.ddim(), grid)
    skipped = sample(jg.cfg_cache(scale, every=2, low=1, high=1), jg.ddim(), grid)
    error = np.abs(out - want).mean()
    assert error < 0.05 and error < np.abs(skipped - want).mean()
    cost = jg.cost(network, jg.linear_ag(scale, table), grid, jg.ddim())
    assert cost.nfe == 16 + 8


def test_recorded_trajectories_are_those_of_generate():
    grid = np.array([0.8, 0.5, 0.3])
    raw, null = cfg_trajectories(
        MODEL.network(), tf.start(), LABEL, NULL, grid=grid, scale=2.0
    )
    assert raw.shape == null.shape == (2, 4, 2, 2)
    x = sample(jg.cfg(2.0), jg.ddim(), grid[:2])
    out = MODEL.predict("noise", paths.Linear(), x, jnp.full(4, 0.5), NULL)
    np.testing.assert_allclose(null[1], out, rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
def test_the_second_stage_of_a_regressed_step_keeps_its_difference():
    table = np.array([[[0.5], [0.4]]])
    x, network = tf.start(), MODEL.network("noise", paths.GVP())
    out = sample(jg.linear_ag(2.0, table), jg.heun(), network=network)
    assert np.isfinite(out).all()
    part = jg.chain(jg.linear_ag(2.0, table)).at(jnp.float32(0.5)).parts[0]
    state = part.init(x)._replace(raw=x[None], null=2 * x[None], step=jnp.int32(3))
    kept = part._regressed(5 * x, state, jnp.int32(3))
    np.testing.assert_allclose(kept, 6 * x, rtol=1e-6)
    fitted = part._regressed(5 * x, state, jnp.int32(4))
    np.testing.assert_allclose(fitted, 2.5 * x + 0.8 * x, rtol=1e-6)


@pytest.mark.parametrize("table", [np.ones(3), np.ones((4, 3, 2)), np.ones((0, 2, 1))])
def test_bad_coefficients_are_refused(table):
    with pytest.raises(ValueError, match="linear_ag: need coefficients"):
        jg.linear_ag(2.0, table)


def test_other_coefficients_do_not_retrace_and_sweep_shares_them():
    probe = tf.toy_probe()
    grid, table = np.linspace(0.9, 0.1, 4), jnp.ones((3, 2, 1)) / 2
    conds = {"null": NULL}
    options = dict(grid=grid, sampler=jg.euler(), conds=conds)
    traces = []
    for gain in (1.0, 0.8):
        jg.generate(
            probe.network(), tf.start(), LABEL,
            guidance=jg.linear_ag(2.0, gain * table), **options,
        )  # fmt: skip
        traces.append(probe.traces)
    assert traces[0] == traces[1]
    points = [jg.linear_ag(s, table) for s in (1.5, 2.5)]
    both = sweep(probe.network(), tf.start(), LABEL, guidances=points, **options)
    for point, out in zip(points, both, strict=True):
        alone = jg.generate(
            probe.network(), tf.start(), LABEL, guidance=point, **options
        )
        np.testing.assert_allclose(out, alone, rtol=1e-5, atol=1e-6)
    points[1] = jg.linear_ag(2.5, table + 1)
    with pytest.raises(ValueError, match="sweep: need guidances that share"):
        sweep(probe.network(), tf.start(), LABEL, guidances=points, **options)


# Residual CFG


def frozen(x, t, label):
    """A null prediction that always means one image: then nothing is approximate."""
    null = (label == 3)[:, None, None]
    image = jnp.full_like(x, 0.3)
    other = jnp.sin(x)
    t = t[:, None, None]
    return jnp.where(null, (x - image) / t, other)


@pytest.mark.parametrize("sampler", [jg.heun(), *rest(jg.euler(), jg.dpmpp_2m())])
def test_rcfg_is_cfg_where_the_null_prediction_means_one_image(sampler):
    network = jg.Network(frozen)
    residual = sample(jg.rcfg(1.7), sampler, network=network)
    plain = sample(jg.cfg(1.7), sampler, network=network)
    np.testing.assert_allclose(residual, plain, rtol=1e-4, atol=1e-5)
    given = sample(
        jg.rcfg(1.7, source="input"), sampler, network=network,
        source=jnp.full((4, 2, 2), 0.3),
    )  # fmt: skip
    np.testing.assert_allclose(given, plain, rtol=1e-4, atol=1e-5)


def test_rcfg_of_one_step_is_cfg():
    grid = np.array([0.7, 0.4])
    np.testing.assert_allclose(
        sample(jg.rcfg(1.7), grid=grid), sample(jg.cfg(1.7), grid=grid), atol=1e-6
    )


def test_rcfg_names_a_missing_image():
    with pytest.raises(ValueError, match="rcfg: need the condition 'source'"):
        sample(jg.rcfg(1.5, source="input"))
    with pytest.raises(ValueError, match="rcfg: need source in"):
        jg.rcfg(1.5, source="twice")
