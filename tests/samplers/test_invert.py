"""Inversion: back to the noise, and from there to the same data again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.errors import InputError
from tests import transforms as tf

FAST_COMPILE = True
MODEL = tf.mixture()
LABEL, NULL = tf.labels()["cond"], tf.labels()["null"]
EVERY_PATH = [make() for make in paths.PATHS.values()]
DATA = MODEL.sample(jax.random.key(3), LABEL)


def there_and_back(steps, inverse, forward, sampler, network=None, start=0.99):
    """Mean distance from the data after inverting and sampling."""
    network = MODEL.network() if network is None else network
    options = dict(grid=np.linspace(start, 0, steps + 1), sampler=sampler)
    options["conds"] = {"null": NULL}
    noise = jg.invert(network, DATA, LABEL, guidance=inverse, **options)
    out = jg.generate(network, noise, LABEL, guidance=forward, **options)
    return float(jnp.abs(out - DATA).mean())


def falling(scale):
    """A CFG++ scale whose effective CFG scale does not depend on the grid."""

    def make(steps, inverse):
        step = 0.99 / steps

        def at(t):  # lambda = w (t - s) / (t (1 - s)); no step starts at t = 0
            return scale * step / (jnp.maximum(t, step) * (1 - t + step))

        return jg.cfgpp(at, inverse=inverse)

    return make


@pytest.mark.parametrize("sampler", [jg.ddim(), jg.euler()], ids=["ddim", "euler"])
@pytest.mark.parametrize("method", ["none", "cfg", "cfgpp"])
def test_the_way_back_ends_at_the_data_up_to_the_step_size(method, sampler):
    def error(steps):
        both = {
            "none": (None, None),
            "cfg": (jg.cfg(1.7),) * 2,
            "cfgpp": (falling(1.7)(steps, True), falling(1.7)(steps, False)),
        }[method]
        return there_and_back(steps, *both, sampler)

    coarse, fine = error(20), error(80)
    assert fine < 0.03
    assert 2.5 < coarse / fine < 8  # first order: about 4


def test_cfgpp_inverts_by_swapping_the_roles():
    swapped = there_and_back(40, jg.cfgpp(0.1, inverse=True), jg.cfgpp(0.1), jg.ddim())
    same = there_and_back(40, jg.cfgpp(0.1), jg.cfgpp(0.1), jg.ddim())
    assert swapped < same / 4


@dataclasses.dataclass(frozen=True)
class Constant:
    """Noise that depends on the label alone."""

    def __call__(self, x, t, label):
        return jnp.ones_like(x) * (label.astype(x.dtype)[:, None, None] - 1) / 2


def test_cfgpp_and_its_inverse_cancel_exactly_where_nothing_depends_on_x():
    network = jg.Network(Constant(), "noise", paths.VP())
    pair = jg.cfgpp(0.6, inverse=True), jg.cfgpp(0.6)
    assert there_and_back(7, *pair, jg.ddim(), network, start=0.6) < 2e-6
    wrong = there_and_back(7, jg.cfgpp(0.6), jg.cfgpp(0.6), jg.ddim(), network, 0.6)
    assert wrong > 0.1


@pytest.mark.parametrize("path", [paths.VP(), paths.DDPM(), paths.GVP()], ids=str)
def test_data_at_time_zero_can_be_inverted_on_every_path(path):
    network = MODEL.network("noise", path)
    grid = np.linspace(0.9, 0.0, 41)
    noise = jg.invert(network, DATA, LABEL, grid=grid, sampler=jg.ddim())
    out = jg.generate(network, noise, LABEL, grid=grid, sampler=jg.ddim())
    assert np.abs(out - DATA).mean() < 0.06
    assert 0.3 < np.std(noise) < 3


def test_one_step_is_the_formula_and_a_window_is_judged_at_the_noisier_end():
    network, grid = MODEL.network(), np.array([0.5, 0.3])
    raw, null = (
        network.predict(DATA, jnp.full(4, jnp.float32(0.3)), one)
        for one in (LABEL, NULL)
    )
    for t_hi, scale in ((0.5, 1.0), (0.6, 2.0)):
        guidance = jg.cfg(2.0, t_lo=0.4, t_hi=t_hi)
        out = jg.invert(
            network, DATA, LABEL, grid=grid, sampler=jg.euler(), guidance=guidance,
            conds={"null": NULL},
        )  # fmt: skip
        want = (DATA + 0.2 * (null + scale * (raw - null))) / 0.5
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_inversion_costs_one_evaluation_per_step_and_the_guidance():
    probe = tf.toy_probe()
    with jax.disable_jit():
        jg.invert(
            probe.network(), DATA, LABEL, grid=jg.uniform(4), sampler=jg.ddim(),
            guidance=jg.cfg(2.0, t_hi=0.5), conds={"null": NULL},
        )  # fmt: skip
    assert probe.evaluations() == 4 + 1  # the step that sampling starts at 0.25


@pytest.mark.parametrize("sampler", [jg.ddim(0.5), jg.heun(), jg.dpmpp_2m()])
def test_what_cannot_be_inverted_is_refused(sampler):
    with pytest.raises(ValueError, match="invert: need a deterministic sampler"):
        jg.invert(MODEL.network(), DATA, LABEL, grid=jg.uniform(4), sampler=sampler)


@pytest.mark.parametrize("sampler", [jg.ddim(), jg.euler()], ids=["ddim", "euler"])
@pytest.mark.parametrize("path", EVERY_PATH, ids=lambda path: type(path).__name__)
def test_from_time_zero_every_kind_is_finite_or_refused_in_one_line(path, sampler):
    """On all paths and kinds; what is refused may end its grid a little above 0."""
    asked, x = [], jnp.ones((2, 3))

    def invert(kind, grid):
        def predict(x, t, cond):
            asked.append(kind)
            return x * 0.3

        network = jg.Network(predict, kind, path)
        return jg.invert(network, x, None, grid=grid, sampler=sampler)

    with jax.disable_jit():
        for kind in paths.KINDS:
            grid = np.array([0.9, 0.4, 0.0])
            try:
                out = invert(kind, grid)
            except InputError as error:
                assert "t=0.0" in str(error) and "above 0" in str(error)
                assert kind not in asked
                out = invert(kind, grid + np.array([0, 0, 1e-3]))
            assert np.isfinite(out).all(), kind


def test_a_network_that_knows_no_noise_at_time_zero_is_refused():
    with pytest.raises(ValueError, match="invert: need sigma > 0"):
        jg.invert(
            MODEL.network("denoised"), DATA, LABEL, grid=jg.uniform(4),
            sampler=jg.ddim(),
        )  # fmt: skip
