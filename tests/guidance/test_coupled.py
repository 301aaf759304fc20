"""CFG++ and Rectified-CFG++ against CFG, unconditional sampling and hand-made steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from tests import transforms as tf
from tests.contract.common import kinds_and_paths, rest

FAST_COMPILE = True
MODEL = tf.mixture()
GRID = np.array([0.9, 0.7, 0.45, 0.2, 0.05])
LABEL = tf.labels()["cond"]
NULL = tf.labels()["null"]


def sample(
    guidance, path, sampler, grid=GRID, kind="velocity", label=LABEL, eager=True
):
    with jax.disable_jit(eager):
        return jg.generate(
            tf.oracle(MODEL, kind, path), tf.start(), label, grid=grid, sampler=sampler,
            guidance=guidance, conds={"null": NULL},
        )  # fmt: skip


def effective(scale, path, grid=GRID):
    """The scale of CFG that first-order CFG++ amounts to, step by step."""
    now, then = path.node(grid[:-1]), path.node(grid[1:])
    gain = then.alpha * now.sigma / (then.alpha * now.sigma - then.sigma * now.alpha)
    table = dict(zip(grid[:-1].tolist(), (scale * gain).tolist(), strict=True))
    return lambda t: table[float(t)]


@pytest.mark.parametrize(
    ("path", "kind"),
    kinds_and_paths(
        ("velocity", "noise", "denoised", "score"),
        (paths.Linear(), paths.GVP(), paths.VP()),
    ),
)
def test_cfgpp_is_cfg_with_the_effective_scale_under_ddim(path, kind):
    plain = sample(jg.cfg(effective(0.6, path)), path, jg.ddim(), kind=kind)
    coupled = sample(jg.cfgpp(0.6), path, jg.ddim(), kind=kind)
    np.testing.assert_allclose(coupled, plain, rtol=2e-5, atol=2e-5)


def test_cfgpp_is_cfg_with_the_effective_scale_to_the_last_digits_in_float64():
    """The same identity in float64 numpy, where only algebra is left."""
    mixture = tf.in_float64(MODEL)
    x = y = 0.9 * np.asarray(tf.start(), np.float64).reshape(4, -1)
    scale = effective(0.6, paths.Linear())
    for t, s in zip(GRID[:-1], GRID[1:], strict=True):
        null, raw = (mixture.velocity(x, t, np.asarray(one)) for one in (NULL, LABEL))
        clean = x - t * (null + 0.6 * (raw - null))
        x = (1 - s) * clean + s * (x + (1 - t) * null)
        null, raw = (mixture.velocity(y, t, np.asarray(one)) for one in (NULL, LABEL))
        y = y + (s - t) * (null + scale(t) * (raw - null))
    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    out = sample(jg.cfgpp(0.6), paths.Linear(), jg.ddim())
    np.testing.assert_allclose(out.reshape(4, -1), x, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "sampler", [jg.ddim(), jg.heun(), *rest(jg.euler(), jg.dpmpp_2m())]
)
def test_cfgpp_at_scale_zero_is_unconditional_sampling(sampler):
    coupled = sample(jg.cfgpp(0.0), paths.GVP(), sampler)
    plain = sample(None, paths.GVP(), sampler, label=NULL)
    np.testing.assert_allclose(coupled, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.exhaustive  # windows: the row cfgpp_window
def test_cfgpp_outside_its_window_is_conditional_sampling_also_at_times_per_sample():
    guided = jg.guide(MODEL.network().predict, jg.cfgpp(0.5, t_hi=0.5), batched=False)
    x = tf.start()
    t = jnp.asarray([0.3, 0.6, 0.4, 0.9])
    pair, _ = guided.pair(x, t, LABEL, guided.init(x), conds={"null": NULL})
    plain = jg.guide(MODEL.network().predict, jg.chain())
    raw, _ = plain.pair(x, t, LABEL, plain.init(x))
    outside = np.asarray(t) >= 0.5
    same = np.abs(pair.noise - raw.noise).reshape(4, -1).max(axis=1) < 1e-6
    assert same.tolist() == outside.tolist()


def test_cfgpp_needs_a_sampler_that_takes_the_pair():
    guided = jg.guide(MODEL.network().predict, jg.cfgpp(0.5))
    x = tf.start()
    with pytest.raises(ValueError, match=r"Use \.pair"):
        guided(x, 0.5, LABEL, guided.init(x), conds={"null": NULL})


@pytest.mark.parametrize("scale", [-0.1, 1.5, float("nan")])
def test_cfgpp_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="cfgpp: need"):
        jg.cfgpp(scale)


def test_rectified_cfgpp_looks_ahead_through_guide():
    """One step by hand: half a conditional step, then the difference there."""
    predict = MODEL.network().predict
    guided = jg.guide(predict, jg.rectified_cfgpp(1.5, power=1.0))
    x, conds = tf.start(), {"null": NULL}
    out, _ = guided(x, 0.6, LABEL, guided.init(x), conds=conds, next_t=0.4)
    at = lambda x, t, label: predict(x, jnp.full(4, t), label)  # noqa: E731
    raw = at(x, 0.6, LABEL)
    middle = x - 0.1 * raw
    want = raw + 1.5 * 0.4 * (at(middle, 0.5, LABEL) - at(middle, 0.5, NULL))
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="need the time at which the step ends"):
        guided(x, 0.6, LABEL, guided.init(x), conds=conds)


def test_rectified_cfgpp_falls_back_to_cfg_as_steps_shrink():
    """v_c + a (v_c - v_u) is CFG with scale 1 + a."""
    grid = np.linspace(0.8, 0.3, 81)
    ahead, plain = (
        sample(guidance, paths.Linear(), jg.euler(), grid, eager=False)
        for guidance in (jg.rectified_cfgpp(1.0), jg.cfg(2.0))
    )
    coarse = GRID[:3]
    far = sample(jg.rectified_cfgpp(1.0), paths.Linear(), jg.euler(), coarse)
    far = np.abs(far - sample(jg.cfg(2.0), paths.Linear(), jg.euler(), coarse)).max()
    assert np.abs(ahead - plain).max() < 0.1 * far


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_rectified_cfgpp_costs_nothing_where_its_power_is_zero(power):
    main = tf.toy_probe()
    grid = np.array([1.0, 0.5, 0.0])
    cost = jg.cost(
        main.network(), jg.rectified_cfgpp(1.0, power=power), grid, jg.euler()
    )
    assert cost.nfe == (6 if power == 0 else 4)


def test_rectified_cfgpp_refuses_a_negative_power():
    with pytest.raises(ValueError, match="rectified_cfgpp: need power >= 0"):
        jg.rectified_cfgpp(1.0, power=-1.0)
