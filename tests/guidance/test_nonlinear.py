"""What the non-linear methods must reduce to, exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance as g
from jaxguide.guidance import schedules
from tests import transforms as tf
from tests.fixed import columns, guided, inner, length, march, predictions

FAST_COMPILE = True
RAW, NULL = predictions()
ZERO = np.zeros_like(RAW)
SCALES = [0.0, 0.4, 1.5, 8.0]


def cfg(scale, raw=RAW, null=NULL):
    return null + np.float32(scale) * (raw - null)


def close(found, want, atol=2e-5):
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=atol)


def perpendicular(value, axis):
    """The part of every sample of `value` that is perpendicular to `axis`."""
    share = columns(inner(value, axis) / inner(axis, axis), value)
    return (value - share * axis).astype(np.float32)


# Methods that are CFG where their own part is switched off.

SWITCHED_OFF = {
    "apg": lambda s: jg.apg(s, momentum=0.0, radius=1e6, parallel=1.0),
    "apg_away": lambda s: jg.apg(
        s, momentum=None, radius=None, parallel=1.0, base="away"
    ),
    "apg_full": lambda s: jg.apg(
        s - 1, momentum=None, radius=None, parallel=1.0, base="full"
    ),
    "apg_mix": lambda s: jg.apg_mix(s, s, momentum=None, radius=None, parallel=1.0),
    "mambo_g": lambda s: jg.mambo_g(s, strength=0.0),
    "beta_cfg": lambda s: jg.beta_cfg(s, a=1, b=1, power=0.0),
    "adaptive_guidance": lambda s: jg.adaptive_guidance(s, threshold=1.0),
    "renorm": lambda s: jg.chain(jg.cfg(s), jg.renorm(limit=1e6)),
    "renorm_zero": lambda s: jg.chain(jg.cfg(s), jg.renorm(0.0, rule="equal")),
    "dynamic_threshold": lambda s: jg.chain(
        jg.cfg(s), jg.dynamic_threshold(percentile=0.5, limit=1e3)
    ),
    "rescale": lambda s: jg.chain(jg.cfg(s), jg.rescale(0.0)),
    "guided_channels": lambda s: jg.chain(jg.cfg(s), jg.guided_channels(2)),
    "zero_init": lambda s: jg.chain(jg.cfg(s), jg.zero_init(0.96)),
}


@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_switched_off_it_is_cfg(name):
    for scale in SCALES:
        close(guided(SWITCHED_OFF[name](scale), RAW, NULL), cfg(scale))


NONLINEAR = {
    "apg": functools.partial(jg.apg, radius=1.0),
    "apg_mix": lambda s: jg.apg_mix(s, s, t_switch=0.5),
    "adg": jg.adg,
    "beta_cfg": jg.beta_cfg,
    "cfg_zero": functools.partial(jg.cfg_zero, zero_init=0.0),
    "fdg": lambda s: jg.fdg((s, 2 * s), parallel=0.3),
    "frequency_cfg": lambda s: jg.frequency_cfg((s, 2 * s)),
    "mambo_g": jg.mambo_g,
    "tcfg": jg.tcfg,
    "adaptive_guidance": jg.adaptive_guidance,
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_where_both_predictions_agree_there_is_nothing_to_guide(name):
    for same in (RAW, ZERO):
        out = guided(NONLINEAR[name](5.0), same, same, t=0.4, kind="velocity")
        close(out, same, atol=1e-5)


# APG.


@pytest.mark.parametrize("momentum", [None, -0.5, 0.75])
@pytest.mark.parametrize("radius", [None, 2.0])
def test_apg_without_a_parallel_part_is_perpendicular_to_raw(momentum, radius):
    raws, nulls = zip(*[predictions(seed=i) for i in range(3)], strict=True)
    one = jg.apg(6.0, momentum=momentum, radius=radius, parallel=0.0)
    for out, raw in zip(march(one, raws, nulls, (0.8, 0.5, 0.2)), raws, strict=True):
        moved = out - raw
        cosine = inner(moved, raw) / (length(moved) * length(raw))
        np.testing.assert_allclose(cosine, 0, atol=2e-6)
        assert np.all(length(moved) > 1)


def test_apg_never_moves_further_than_its_radius_allows():
    for base, scale in (("toward", 4.0), ("full", 3.0)):
        one = jg.apg(scale, momentum=None, radius=0.5, parallel=1.0, base=base)
        np.testing.assert_allclose(length(guided(one, RAW, NULL) - RAW), 1.5, rtol=1e-5)


def test_apg_of_parallel_predictions_without_a_parallel_part_is_raw():
    close(guided(jg.apg(6.0, parallel=0.0), RAW, np.float32(0.3) * RAW), RAW)


def test_apg_mix_is_cfg_then_apg_that_remembers():
    raws, nulls = zip(*[predictions(seed=i) for i in range(4)], strict=True)
    times = (0.95, 0.8, 0.6, 0.3)
    options = dict(momentum=-0.5, radius=3.0)
    out = march(jg.apg_mix(3.0, 7.0, t_switch=0.7, **options), raws, nulls, times)
    alone = march(jg.apg(7.0, **options), raws, nulls, times)
    for i in range(2):
        close(out[i], cfg(3.0, raws[i], nulls[i]))
        assert np.abs(out[i] - alone[i]).max() > 0.1
    close(out[2:], alone[2:])


# CFG-Zero* and TCFG.


@pytest.mark.parametrize("share", [-0.5, 0.3, 2.0])
def test_cfg_zero_of_parallel_predictions_is_raw_at_every_scale(share):
    for scale in SCALES:
        one = jg.cfg_zero(scale, zero_init=0.0)
        close(guided(one, RAW, np.float32(share) * RAW), RAW)


def test_cfg_zero_is_cfg_where_the_null_prediction_already_fits():
    """raw = null + what is perpendicular to null: the best multiple is 1."""
    raw = NULL + perpendicular(RAW, NULL)
    for scale in SCALES:
        out = guided(jg.cfg_zero(scale, zero_init=0.0), raw, NULL)
        close(out, cfg(scale, raw))


def test_cfg_zero_does_not_see_how_long_the_null_prediction_is():
    one = jg.cfg_zero(4.0, zero_init=0.0)
    close(guided(one, RAW, NULL), guided(one, RAW, np.float32(-7) * NULL))


def test_the_first_steps_of_cfg_zero_do_not_move_and_cost_one_evaluation():
    probe = tf.toy_probe()
    grid = np.array([1.0, 0.99, 0.97])
    with jax.disable_jit():
        out = tf.sample(jg.cfg_zero(4.0), probe, probe, grid)
    np.testing.assert_allclose(out, tf.start(), rtol=2e-7)
    assert probe.evaluations() == 2
    np.testing.assert_array_equal(guided(jg.zero_init(0.5), RAW, NULL, t=0.5), ZERO)
    np.testing.assert_array_equal(guided(jg.zero_init(0.5), RAW, NULL, t=0.4), RAW)


@pytest.mark.parametrize("share", [-0.5, 0.3, 2.0])
def test_tcfg_of_parallel_predictions_is_cfg(share):
    null = np.float32(share) * RAW
    for scale in SCALES:
        close(guided(jg.tcfg(scale), RAW, null), cfg(scale, null=null))


def test_tcfg_of_perpendicular_predictions_keeps_the_longer_one():
    null = perpendicular(NULL, RAW)
    null = null / columns(length(null) / length(RAW), null).astype(np.float32)
    short, long = np.float32(0.8) * null, np.float32(1.25) * null
    close(guided(jg.tcfg(3.0), RAW, short), 3.0 * RAW)  # nothing is left of null
    close(guided(jg.tcfg(3.0), RAW, long), cfg(3.0, null=long))


def test_the_gram_form_of_tcfg_is_the_singular_vector():
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(300, 9))
    null = rng.normal(size=(300, 1)) * raw + rng.normal(size=(300, 9)) * np.geomspace(
        1e-3, 3, 300
    ).reshape(-1, 1)
    out = guided(jg.tcfg(4.0), raw.astype(np.float32), null.astype(np.float32))
    _, _, basis = np.linalg.svd(np.stack([raw, null], axis=1), full_matrices=False)
    first = basis[:, 0]
    damped = (null * first).sum(axis=1, keepdims=True) * first
    np.testing.assert_allclose(out, damped + 4.0 * (raw - damped), atol=2e-4)


# ADG and MAMBO-G.


def test_adg_does_not_see_how_long_the_null_prediction_is():
    close(guided(jg.adg(2.0), RAW, NULL), guided(jg.adg(2.0), RAW, 5 * NULL))


def test_adg_stops_at_its_limit():
    one, two = (guided(jg.adg(s, limit=0.5), RAW, NULL) for s in (20.0, 3000.0))
    close(one, two)
    angle = np.arccos(inner(RAW, NULL) / length(RAW) / length(NULL))
    assert angle.max() < 0.5 * 20
    across = columns(np.sin(0.5) / np.sin(angle), RAW) * perpendicular(RAW, NULL)
    close(one, np.cos(0.5) * RAW + across)
    small = guided(jg.adg(1.1, limit=0.5), RAW, NULL)
    assert np.abs(small - one).max() > 0.1


def test_adg_stays_in_the_plane_of_the_two_predictions():
    out = guided(jg.adg(2.0), RAW, NULL)
    for sample in zip(out, RAW, NULL, strict=True):
        rows = np.stack([one.ravel() for one in sample]).astype(np.float64)
        assert np.linalg.svd(rows, compute_uv=False)[2] < 1e-5


def test_strong_damping_leaves_raw_and_null_of_length_zero_is_survived():
    close(guided(jg.mambo_g(9.0, strength=1e4), RAW, NULL), RAW)
    out = guided(jg.mambo_g(9.0, strength=1.0), RAW, ZERO)
    assert np.all(np.isfinite(out))


# Beta-CFG and the weight schedulers.


def test_beta_cfg_is_unconditional_at_both_ends():
    one = jg.beta_cfg(8.0, t_last=0.1, space="denoised")
    for t in (1.0, 0.1):
        close(guided(one, RAW, NULL, t=t), NULL, atol=1e-6)
    assert np.abs(guided(one, RAW, NULL, t=0.5) - NULL).max() > 1


def test_the_full_power_of_beta_cfg_leaves_the_density_as_the_length():
    for t in (0.9, 0.3):
        out = guided(jg.beta_cfg(2.0, power=1.0, space="denoised"), RAW, NULL, t=t)
        np.testing.assert_allclose(length(out - NULL), 12 * t * (1 - t), rtol=1e-4)


@pytest.mark.parametrize("name", sorted(schedules.CURVES))
def test_a_scheduled_scale_is_the_number_of_its_time(name):
    make = schedules.CURVES[name]
    schedule = make(3.0, 1.0) if name == "clamp" else make(3.0)
    for t in (1.0, 0.7, 0.2):
        number = float(schedule.on_host(t))
        close(guided(jg.cfg(schedule), RAW, NULL, t=t), cfg(number))


def test_beta_cfg_is_its_schedule_where_the_norm_does_not_count():
    one = jg.beta_cfg(3.0, a=2.0, b=3.0, power=0.0)
    same = jg.cfg(schedules.beta(3.0, 2.0, 3.0))
    for t in (0.9, 0.5, 0.1):
        close(guided(one, RAW, NULL, t=t), guided(same, RAW, NULL, t=t))


# Maps of the guided prediction.


def after_cfg(*parts, scale=5.0, raw=RAW, null=NULL, **options):
    return guided(jg.chain(jg.cfg(scale), *parts), raw, null, **options)


def test_a_full_rescale_has_the_standard_deviation_of_raw():
    out = after_cfg(jg.rescale(1.0))
    axes = (1, 2, 3)
    np.testing.assert_allclose(out.std(axes), RAW.std(axes), rtol=1e-5)
    plain, half = cfg(5.0), after_cfg(jg.rescale(0.5))
    close(half, (out + plain) / 2)


def test_nothing_guided_is_nothing_to_rescale_or_to_renorm():
    for part in (jg.rescale(1.0), jg.renorm(rule="equal"), jg.renorm(axes=(-1,))):
        off = jg.chain(jg.cfg(lambda t: 1.0), part)
        close(guided(off, RAW, NULL), RAW, atol=1e-6)


def test_apg_over_the_last_axis_is_that_of_every_pixel_alone():
    """Pixels as samples: [B H W, C], a norm over all but the first axis."""
    options = dict(momentum=None, radius=0.5, parallel=0.4)
    pixels = [each.reshape(-1, each.shape[-1]) for each in (RAW, NULL)]
    want = guided(jg.apg(3.0, **options), *pixels).reshape(RAW.shape)
    close(guided(jg.apg(3.0, axes=-1, **options), RAW, NULL), want)
    whole = guided(jg.apg(3.0, **options), RAW, NULL)
    close(guided(jg.apg(3.0, axes=(1, 2, 3), **options), RAW, NULL), whole)
    mixed = jg.apg_mix(3.0, 3.0, axes=-1, **options)
    assert [each.axes for each in mixed.then.maps] == [(-1,), (-1,)]


def test_fdg_with_one_parallel_weight_per_level():
    """Each level has its own: what differs from none is a sum over the levels."""
    scales = (3.0, 2.0)

    def out(parallel):
        return guided(jg.fdg(scales, parallel=parallel), RAW, NULL)

    close(out((0.3, 0.3)), out(0.3))
    close(out([None, 0.3]) + out((0.3, None)), out(None) + out(0.3))
    assert np.abs(out((0.3, None)) - out((None, 0.3))).max() > 1e-2


@pytest.mark.parametrize("axes", [None, (-1,), (1, 2)])
@pytest.mark.parametrize("limit", [0.8, 1.3])
def test_renorm_sets_or_limits_the_length(axes, limit):
    def lengths(value):
        over = (1, 2, 3) if axes is None else axes
        return np.sqrt((value.astype(np.float64) ** 2).sum(over))

    plain, most = cfg(5.0), limit * lengths(RAW)
    equal = after_cfg(jg.renorm(limit=limit, rule="equal", axes=axes))
    np.testing.assert_allclose(lengths(equal), most, rtol=1e-5)
    bounded = after_cfg(jg.renorm(limit=limit, axes=axes))
    want = np.minimum(lengths(plain), most)
    np.testing.assert_allclose(lengths(bounded), want, rtol=1e-5)
    if axes == (-1,):  # some are short enough already
        assert 0 < (lengths(plain) <= most).mean() < 1


def test_the_largest_value_as_threshold_only_scales():
    plain, out = cfg(5.0), after_cfg(jg.dynamic_threshold(percentile=1.0, limit=1.5))
    largest = np.abs(plain).max((1, 2, 3), keepdims=True)
    assert np.all(largest > 1.5)
    close(out, plain * 1.5 / largest)


def test_a_threshold_squeezes_what_is_denoised_whatever_the_network_predicts():
    out = after_cfg(
        jg.dynamic_threshold(percentile=0.8, limit=1.0), kind="velocity", t=0.5
    )
    denoised = np.float32(0.3) - np.float32(0.5) * out  # x - t v
    assert np.abs(denoised).max() < 1 + 1e-5
    clipped = (np.abs(denoised) > 1 - 1e-5).mean((1, 2, 3))
    assert np.all((clipped >= 0.19) & (clipped <= 0.25))


def test_the_other_channels_are_bitwise_raw():
    """Three of four, as DiT does it."""
    raw, null = predictions((2, 3, 3, 4))
    out = after_cfg(jg.guided_channels(3), raw=raw, null=null)
    np.testing.assert_array_equal(out[..., 3], raw[..., 3])
    np.testing.assert_array_equal(out[..., :3], after_cfg(raw=raw, null=null)[..., :3])
    first = [one.transpose(0, 3, 1, 2) for one in (raw, null)]
    moved = after_cfg(jg.guided_channels(3, axis=1), raw=first[0], null=first[1])
    np.testing.assert_array_equal(moved, out.transpose(0, 3, 1, 2))


def test_numbers_per_sample_are_the_samples_alone():
    """Scales, radii and limits [B], for every method that takes them."""
    scales = jnp.asarray([1.5, 3.0, 6.0])
    makes = NONLINEAR | {
        "renorm": lambda s: jg.chain(jg.cfg(4.0), jg.renorm(limit=s / 6)),
        "threshold": lambda s: jg.chain(jg.cfg(4.0), jg.dynamic_threshold(limit=s / 4)),
        "radius": lambda s: jg.apg(4.0, radius=s, parallel=s / 6, momentum=s / 9),
        "strength": lambda s: jg.mambo_g(4.0, strength=s),
        "power": lambda s: jg.beta_cfg(4.0, power=s / 6),
        "away": lambda s: jg.contrast(
            4.0, g.NULL, space="denoised", maps=(g.clip_norm(s), g.norm_power(s / 9))
        ),
    }
    for make in makes.values():
        together = guided(make(scales), RAW, NULL, t=0.4)
        for i, scale in enumerate([1.5, 3.0, 6.0]):
            close(together[i], guided(make(scale), RAW, NULL, t=0.4)[i])
