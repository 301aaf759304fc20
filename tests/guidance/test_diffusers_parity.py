"""diffusers' guiders run live beside ours: same predictions in, same prediction out.

Guiders see raw network outputs and know no time; windows of theirs are shares of steps.
Both sides run in float32. Where diffusers is broken a test says so, and fails on the
day it is mended. Guiders that reach into the network stand in test_inside_parity.py.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance as g
from tests.contract.common import rest
from tests.lazy import needs

torch, guiders = needs(
    "torch", "diffusers.guiders", reason="parity needs the extra `parity`"
)
FAST_COMPILE = True

IMAGES, VIDEO, TOKENS = (3, 4, 8, 8), (2, 4, 3, 4, 6), (3, 10, 6)
STEPS = 6


def predictions(shape, seed=0, steps=STEPS):
    """Conditional and unconditional float32 outputs of every step, somewhat alike."""
    rng = np.random.default_rng(seed)
    cond = rng.normal(size=(steps, *shape))
    null = cond + 0.6 * rng.normal(size=(steps, *shape))
    return cond.astype(np.float32), null.astype(np.float32)


def ours(transform, cond, null, **others):
    """A network that returns its condition, guided at t = 1 - i / N."""
    guided = g.guide(lambda x, t, cond: cond, transform)
    state = guided.init(jnp.asarray(cond[0]))
    outs = []
    for i in range(len(cond)):
        x, t = jnp.zeros_like(cond[i]), 1 - i / len(cond)
        conds = {"null": null[i]} | {name: one[i] for name, one in others.items()}
        conds = {name: jnp.asarray(one) for name, one in conds.items()}
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


def assert_same(transform, guider, shape=IMAGES, seed=0, steps=STEPS):
    cond, null = predictions(shape, seed, steps)
    got, want = ours(transform, cond, null), theirs(guider, cond, null)
    assert np.abs(want - cond).max() > 1e-3  # it does something
    assert_near(got, want)


def assert_near(got, want):
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"relative error {error:.1e}")
    assert error < 1e-5


# Images by default; one video stands in `RANDOM`.
every_shape = pytest.mark.parametrize("shape", [IMAGES, *rest(VIDEO, TOKENS)], ids=str)


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


@pytest.mark.parametrize("axes", [-1, 1, (-2, -1)], ids=str)
def test_apg_over_chosen_axes(axes):
    """`norm_dim`: ACE-Step takes lengths over one axis."""
    guider = guiders.AdaptiveProjectedGuidance(
        5.0, -0.5, 1.2, eta=0.3, adaptive_projected_guidance_norm_dim=axes
    )
    transform = jg.apg(
        5.0, momentum=-0.5, radius=1.2, parallel=0.3, base="away", axes=axes,
        space="native",
    )  # fmt: skip
    assert_same(transform, guider)


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
    pytest.importorskip("kornia", reason="diffusers' FDG needs kornia")
    return guiders.FrequencyDecoupledGuidance(**options)


@pytest.mark.parametrize(
    "shape",
    [
        (2, 4, 8, 8),
        *(
            pytest.param(s, marks=pytest.mark.exhaustive)
            for s in ((2, 3, 16, 16), (2, 3, 8, 16))
        ),
    ],
    ids=str,
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


@pytest.mark.parametrize("parallel", [(0.3, 1.7), (1.0, 0.0)])
def test_fdg_with_a_parallel_weight_per_level(parallel):
    guider = fdg(
        guidance_scales=[4.0, 2.0], parallel_weights=parallel,
        use_original_formulation=True,
    )  # fmt: skip
    assert_same(
        jg.fdg((5.0, 3.0), parallel=parallel, axes=(2, 3), space="native"), guider
    )


# Guidance of several terms at once.


@pytest.mark.parametrize("rescale", [0.0, 0.4])
def test_ltx2_is_three_contrasts(rescale):
    guider = guiders.LTX2Guidance(3.0, 1.2, 2.5, guidance_rescale=rescale, **SHARES)
    transform = jg.chain(
        jg.cfg(3.0, **WINDOW),
        jg.contrast(1.2, g.Branch(cond="skipped"), **WINDOW),
        jg.contrast(2.5, g.Branch(cond="alone"), neutral=1.0, **WINDOW),
        jg.rescale(rescale),
    )
    (cond, null), (skipped, alone) = predictions(IMAGES), predictions(IMAGES, 1)
    got = ours(transform, cond, null, skipped=skipped, alone=alone)
    want = []
    for step, slots in enumerate(zip(cond, null, skipped, alone, strict=True)):
        guider.set_state(step=step, num_inference_steps=STEPS, timestep=None)
        slots = [torch.from_numpy(slot) for slot in slots]
        want.append(guider.forward(*slots).pred.numpy())
    assert_near(got, np.stack(want))


# Scales, windows, numbers of steps and predictions drawn at random.


def random_window(rng, steps):
    """The same steps as shares of steps and as a window of noise times."""
    first = int(rng.integers(0, steps - 2))
    last = int(rng.integers(first + 2, steps + 1))
    shares = dict(start=first / steps + 1e-6, stop=min(last / steps + 1e-6, 1.0))
    t_hi = 1 - (first - 0.5) / steps if first else 1.0
    return shares, dict(t_lo=1 - (last - 0.5) / steps, t_hi=t_hi)


def random_cfg(rng, scale, shares, window):
    del rng
    return jg.cfg(scale, **window), guiders.ClassifierFreeGuidance(scale, **shares)


def random_apg(rng, scale, shares, window):
    beta, radius, eta = rng.uniform([-0.9, 2.0, 0.0], [0.9, 20.0, 1.5]).tolist()
    guider = guiders.AdaptiveProjectedGuidance(scale, beta, radius, eta=eta, **shares)
    options = dict(momentum=beta, radius=radius, parallel=eta, base="away")
    return jg.apg(scale, **options, space="native", **window), guider


def random_cfg_zero(rng, scale, shares, window):
    del rng
    guider = guiders.ClassifierFreeZeroStarGuidance(scale, 0, **shares)
    return jg.cfg_zero(scale, zero_init=0.0, **window), guider


def random_tcfg(rng, scale, shares, window):
    del rng
    guider = guiders.TangentialClassifierFreeGuidance(scale, **shares)
    return jg.tcfg(scale, **window), guider


def random_mambo_g(rng, scale, shares, window):
    alpha = float(rng.uniform(0, 8))
    guider = guiders.MagnitudeAwareGuidance(scale, alpha, **shares)
    return jg.mambo_g(scale, strength=alpha, **window), guider


def random_fdg(rng, scale, shares, window):
    scales, parallel = (scale, *rng.uniform(2, 9, 1).tolist()), float(rng.uniform(0, 2))
    guider = fdg(
        guidance_scales=list(scales),
        parallel_weights=parallel,
        use_original_formulation=True,
        **shares,
    )
    more = tuple(one + 1 for one in scales)
    options = dict(parallel=parallel, axes=(2, 3), space="native")
    return jg.fdg(more, **options, **window), guider


RANDOM = {
    random_cfg: VIDEO,
    random_apg: IMAGES,
    random_cfg_zero: IMAGES,
    random_tcfg: VIDEO,
    random_mambo_g: TOKENS,
    random_fdg: IMAGES,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", RANDOM, ids=lambda make: make.__name__)
def test_random_numbers(make, seed):
    rng = np.random.default_rng(100 + seed)
    steps, scale = int(rng.integers(4, 9)), float(rng.uniform(1.5, 12))
    transform, guider = make(rng, scale, *random_window(rng, steps))
    assert_same(transform, guider, RANDOM[make], seed, steps)


def test_every_guider_runs_here_or_inside_a_network():
    here = Path(__file__)
    text = here.read_text() + here.with_name("test_inside_parity.py").read_text()
    found = [getattr(guiders, name) for name in dir(guiders)]
    found = [one for one in found if isinstance(one, type)]
    found = [one.__name__ for one in found if issubclass(one, guiders.BaseGuidance)]
    found.remove("BaseGuidance")
    assert len(found) >= 12
    assert [name for name in found if f"guiders.{name}(" not in text] == []


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


def test_broken_fdg_keeps_its_padding_and_ours_needs_none():
    cond, null = predictions((2, 3, 6, 10))
    assert theirs(fdg(), cond, null).shape[-2:] == (8, 16)
    out = ours(jg.fdg(axes=(2, 3)), cond, null)
    assert out.shape == cond.shape
    same = ours(jg.fdg((4.0, 4.0), axes=(2, 3)), cond, null)
    assert_near(same, ours(jg.cfg(4.0), cond, null))


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
