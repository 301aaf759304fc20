"""diffusers' guiders run live beside ours: same predictions in, same prediction out.

Guiders see raw network outputs and know no time; windows of theirs are shares of steps.
Both sides run in float32. Where diffusers is broken a test says so, and fails on the
day it is mended.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance as g

torch = pytest.importorskip("torch")
guiders = pytest.importorskip("diffusers.guiders")

IMAGES, VIDEO, TOKENS = (3, 4, 8, 8), (2, 4, 3, 4, 6), (3, 10, 6)
STEPS = 6


def predictions(shape, seed=0, steps=STEPS):
    """Conditional and unconditional float32 outputs of every step, alike but not same."""
    rng = np.random.default_rng(seed)
    cond = rng.normal(size=(steps, *shape))
    null = cond + 0.6 * rng.normal(size=(steps, *shape))
    return cond.astype(np.float32), null.astype(np.float32)


def ours(transform, cond, null):
    """A network that returns its condition, guided at t = 1 - i / N."""
    guided = g.guide(lambda x, t, cond: cond, transform)
    state = guided.init(jnp.asarray(cond[0]))
    outs = []
    for i in range(len(cond)):
        x, t = jnp.zeros_like(cond[i]), 1 - i / len(cond)
        conds = {"null": jnp.asarray(null[i])}
        out, state = guided(x, t, jnp.asarray(cond[i]), state, conds=conds)
        outs.append(np.asarray(out))
    return np.stack(outs)


def theirs(guider, cond, null):
    """The guider through its own life cycle, its branches picked by its own count."""
    outs = []
    for i, (c, u) in enumerate(zip(cond, null, strict=True)):
        c, u = torch.from_numpy(c), torch.from_numpy(u)
        guider.set_state(step=i, num_inference_steps=len(cond), timestep=None)
        guider.prepare_inputs({"prediction": (c, u)})
        both = guider.num_conditions > 1
        outs.append(guider.forward(c, u if both else None).pred.numpy())
    return np.stack(outs)


def assert_same(transform, guider, shape=IMAGES, seed=0, least=1e-3):
    cond, null = predictions(shape, seed)
    got, want = ours(transform, cond, null), theirs(guider, cond, null)
    assert np.abs(want - cond).max() > least  # it does something
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


every_shape = pytest.mark.parametrize("shape", [IMAGES, VIDEO, TOKENS], ids=str)


# Between steps 1 and 2, and between steps 4 and 5, of six.
WINDOW = dict(t_lo=1 - 4.5 / STEPS, t_hi=1 - 1.5 / STEPS)
SHARES = dict(start=2 / STEPS + 1e-6, stop=5 / STEPS + 1e-6)


@every_shape
@pytest.mark.parametrize("scale", [0.0, 0.7, 1.5, 7.5])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_cfg_with_rescale(shape, scale, rescale):
    guider = guiders.ClassifierFreeGuidance(scale, guidance_rescale=rescale)
    parts = [jg.cfg(scale)] + [jg.rescale(rescale)] * bool(rescale)
    assert_same(jg.chain(*parts), guider, shape)


def test_cfg_in_an_interval():
    guider = guiders.ClassifierFreeGuidance(4.0, **SHARES)
    assert_same(jg.cfg(4.0, **WINDOW), guider)
    cond, null = predictions(IMAGES)
    out = theirs(guider, cond, null)
    acts = [bool(np.any(out[i] != cond[i])) for i in range(STEPS)]
    assert acts == [False, False, True, True, True, False]


def test_cfg_in_its_original_form_is_one_scale_more():
    guider = guiders.ClassifierFreeGuidance(3.0, use_original_formulation=True)
    assert_same(jg.cfg(4.0), guider)


@every_shape
@pytest.mark.parametrize("momentum", [None, -0.5, 0.75])
@pytest.mark.parametrize("original", [False, True])
def test_apg(shape, momentum, original):
    radius = 0.5 * np.sqrt(np.prod(shape[1:])) * 0.6  # half of the lengths are clipped
    guider = guiders.AdaptiveProjectedGuidance(
        5.0,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_rescale=float(radius),
        eta=0.3,
        use_original_formulation=original,
    )
    base = "full" if original else "away"
    transform = jg.apg(
        5.0, momentum=momentum, radius=radius, parallel=0.3, base=base, space="native"
    )
    assert_same(transform, guider, shape)


def test_apg_with_diffusers_defaults_and_a_window():
    guider = guiders.AdaptiveProjectedGuidance(
        adaptive_projected_guidance_momentum=-0.5, guidance_rescale=0.4, **SHARES
    )
    apg = jg.apg(
        7.5, momentum=-0.5, radius=15.0, parallel=1.0, base="away", space="native",
        **WINDOW,
    )  # fmt: skip
    assert_same(jg.chain(apg, jg.rescale(0.4)), guider)


@pytest.mark.parametrize("first", [1, 3])
def test_apg_mix(first):
    guider = guiders.AdaptiveProjectedMixGuidance(
        adaptive_projected_guidance_rescale=6.0,
        eta=0.2,
        adaptive_projected_guidance_start_step=first,
    )
    transform = jg.apg_mix(
        3.5, 10.0, t_switch=1 - (first + 0.5) / STEPS, radius=6.0, parallel=0.2,
        base="away", space="native",
    )  # fmt: skip
    assert_same(transform, guider)


@every_shape
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_cfg_zero_star(shape, zeros):
    guider = guiders.ClassifierFreeZeroStarGuidance(4.0, zero_init_steps=zeros)
    share = max(0.0, (zeros - 0.5) / STEPS)
    assert_same(jg.cfg_zero(4.0, zero_init=share), guider, shape)


def test_cfg_zero_star_in_its_original_form_is_one_scale_more():
    guider = guiders.ClassifierFreeZeroStarGuidance(
        3.0, zero_init_steps=0, use_original_formulation=True
    )
    assert_same(jg.cfg_zero(4.0, zero_init=0.0), guider)


@every_shape
@pytest.mark.parametrize("original", [False, True])
def test_tcfg(shape, original):
    guider = guiders.TangentialClassifierFreeGuidance(
        5.0, use_original_formulation=original
    )
    assert_same(jg.tcfg(5.0 + original), guider, shape)


def test_mambo_g_on_tokens():
    for original in (False, True):
        guider = guiders.MagnitudeAwareGuidance(
            9.0, alpha=3.0, use_original_formulation=original
        )
        transform = jg.mambo_g(9.0 + original, strength=3.0)
        assert_same(transform, guider, TOKENS)


# FDG, whose pyramid is kornia's: images [B, C, H, W] with sides that are powers of two.


def fdg(**options):
    pytest.importorskip("kornia")
    return guiders.FrequencyDecoupledGuidance(**options)


@pytest.mark.parametrize(
    "shape", [(2, 4, 8, 8), (2, 3, 16, 16), (2, 3, 8, 16)], ids=str
)
@pytest.mark.parametrize("scales", [(10.0, 5.0), (6.0, 2.0, 3.0)], ids=str)
def test_fdg(shape, scales):
    guider = fdg(guidance_scales=list(scales))
    transform = jg.fdg(scales, axes=(2, 3), space="native")
    assert_same(transform, guider, shape)


def test_fdg_with_parallel_weights_in_its_original_form():
    guider = fdg(
        guidance_scales=[4.0, 2.0], parallel_weights=0.3, use_original_formulation=True
    )
    transform = jg.fdg((5.0, 3.0), parallel=0.3, axes=(2, 3), space="native")
    assert_same(transform, guider)


# What is broken there, as it is today.


def test_broken_mambo_g_refuses_images_and_ours_does_not():
    cond, null = predictions(IMAGES)
    with pytest.raises(RuntimeError):
        theirs(guiders.MagnitudeAwareGuidance(9.0), cond, null)
    out = ours(jg.mambo_g(9.0, strength=3.0), cond, null)
    ratio = np.sqrt(((cond - null) ** 2).sum((2, 3, 4)) / (null**2).sum((2, 3, 4)))
    scale = 1 + 8 * np.exp(-3 * ratio)[:, :, None, None, None]
    want = null + scale * (cond - null)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_broken_tcfg_does_not_know_which_branch_it_is_in():
    guider = guiders.TangentialClassifierFreeGuidance(5.0)
    with pytest.raises(AttributeError):
        _ = guider.is_conditional


def test_broken_cfg_zero_star_with_rescale_is_nan_where_ours_is_zero():
    cond, null = predictions(IMAGES)
    guider = guiders.ClassifierFreeZeroStarGuidance(4.0, guidance_rescale=0.7)
    assert np.isnan(theirs(guider, cond, null)[0]).all()
    transform = jg.chain(jg.cfg_zero(4.0, zero_init=0.1), jg.rescale(0.7))
    out = ours(transform, cond, null)
    assert np.all(out[0] == 0) and np.all(np.isfinite(out))


def test_broken_fdg_fails_where_a_level_is_off_and_ours_guides_the_other():
    guider = fdg(guidance_scales=[1.0, 5.0])
    cond, null = predictions(IMAGES)
    with pytest.raises(UnboundLocalError):
        theirs(guider, cond, null)
    out = ours(jg.fdg((1.0, 5.0), axes=(2, 3)), cond, null)
    whole = ours(jg.cfg(5.0), cond, null)
    assert 0.1 < np.abs(out - cond).max() < np.abs(whole - cond).max()


def test_without_kornia_diffusers_has_no_fdg():
    if importlib.util.find_spec("kornia"):
        pytest.skip("kornia is here")
    with pytest.raises(ImportError, match="kornia"):
        guiders.FrequencyDecoupledGuidance()


def test_the_three_bases_of_apg_differ_where_the_direction_is_not_the_difference():
    cond, null = predictions(IMAGES)
    bases = {
        base: ours(jg.apg(4.0, base=base, space="native"), cond, null)
        for base in ("toward", "away", "full")
    }
    assert np.abs(bases["toward"] - bases["away"]).max() > 0.1
    assert np.abs(bases["toward"] - bases["full"]).max() > 0.1
    more = ours(jg.apg(5.0, base="toward", space="native"), cond, null)
    np.testing.assert_allclose(bases["full"], more, rtol=1e-5, atol=1e-5)
    with jax.disable_jit():  # nothing in them depends on compilation
        again = ours(jg.apg(4.0, base="away", space="native"), cond, null)
    np.testing.assert_array_equal(again, bases["away"])
