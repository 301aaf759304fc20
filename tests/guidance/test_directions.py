"""Direction maps and frequency bands: what each must leave alone, and slow twins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxguide as jg
from jaxguide import guidance as g
from jaxguide.guidance import Sides, _pyramid as pyramids
from tests.contract.common import EXHAUSTIVE
from tests.fixed import columns, guided, inner, length, march, predictions

FAST_COMPILE = True
RAW, NULL = predictions()
CFG = NULL + 3.0 * (RAW - NULL)
LEVELS = [
    ((2, 7), 3),
    ((2, 8, 6, 2), 4),
    ((2, 5, 7, 1), 2),
    ((2, 3, 4, 6, 2), 2),
]
MORE = [((2, 5, 3), 2), ((2, 8, 6, 2), 1)]
LEVELS += [pytest.param(*case, marks=EXHAUSTIVE) for case in MORE]


def mapped(*maps, raw=RAW, null=NULL, weight=1.0, **options):
    """What the maps make of raw - null."""
    options = dict(space="denoised") | options
    one = g.contrast(weight, g.NULL, maps=maps, **options)
    return guided(one, raw, null) - raw


def close(found, want, atol=2e-5):
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=atol)


# Maps that must leave the difference alone.

IDENTITIES = {
    "momentum": g.momentum(0.0),
    "clip_norm": g.clip_norm(1e6),
    "project": g.project(1.0),
    "project_about": g.project(1.0, about=g.NULL),
    "norm_power": g.norm_power(0.0),
    "damp": g.damp(0.0),
    "laplacian": g.laplacian((1.0, 1.0, 1.0)),
    "laplacian_parallel": g.laplacian((1.0, 1.0), parallel=1.0),
    "frequency": g.frequency((1.0, 1.0, 1.0), (0.4, 0.2)),
    "within": g.within(0.0, 0.5, g.clip_norm(0.1)),
}


def names_and_bases():
    """Every map on one base, every base with one map; the other pairs in the rest."""
    for name in IDENTITIES:
        for base in ("toward", "away", "full"):
            marks = [] if base == "toward" or name == "project" else EXHAUSTIVE
            yield pytest.param(name, base, marks=marks, id=f"{name}-{base}")


@pytest.mark.parametrize(("name", "base"), names_and_bases())
def test_a_map_that_is_the_identity_leaves_cfg(name, base):
    scale, neutral = (2.0, 0.0) if base == "full" else (3.0, 1.0)
    options = dict(neutral=neutral, base=base, space="denoised")
    one = g.contrast(scale, g.NULL, maps=(IDENTITIES[name],), **options)
    close(guided(one, RAW, NULL), CFG)


ALL_MAPS = IDENTITIES | {
    "clip_norm": g.clip_norm(0.5),
    "project": g.project(0.0),
    "norm_power": g.norm_power(1.0),
    "opt_scale": g.opt_scale(),
    "tangential": g.tangential(),
    "damp": g.damp(2.0),
    "rotate": g.rotate(),
}


@pytest.mark.parametrize("size", [0.0, 1.0])
@pytest.mark.parametrize("name", ALL_MAPS)
def test_equal_predictions_give_nothing_and_finite_slopes(name, size):
    """Also where both are zero, and no direction or angle is defined."""
    same = size * RAW
    out = mapped(ALL_MAPS[name], raw=same, null=same, weight=3.0)
    np.testing.assert_allclose(out, 0, atol=2e-6)

    def objective(weight, raw):
        function = jg.guide(
            lambda x, t, cond: cond,
            g.contrast(weight, g.NULL, maps=(ALL_MAPS[name],), space="denoised"),
            kind="denoised",
        )
        conds = {"null": jnp.asarray(same)}
        return function(raw, 0.6, raw, function.init(raw), conds=conds)[0].sum()

    slopes = jax.jit(jax.grad(objective, (0, 1)))(jnp.float32(3.0), jnp.asarray(same))
    for slope in slopes:
        assert np.all(np.isfinite(slope))


# One by one.


def test_momentum_is_a_geometric_sum_and_may_be_negative():
    raws, nulls = [RAW] * 4, [NULL] * 4
    times = (0.8, 0.6, 0.4, 0.2)
    for beta in (0.5, -0.75):
        one = g.contrast(1.0, g.NULL, maps=(g.momentum(beta),), space="denoised")
        out = march(one, raws, nulls, times)
        shares = [1, 1 + beta, 1 + beta + beta**2, 1 + beta + beta**2 + beta**3]
        for found, share in zip(out, shares, strict=True):
            close(found, RAW + share * (RAW - NULL))


def test_momentum_forgets_at_a_restart():
    one = g.momentum(0.9)
    state = one.init(jnp.asarray(RAW))._replace(average=jnp.asarray(NULL))
    found = {}
    for restart in (False, True):
        node = jax.tree.map(jnp.float32, jg.Network(None).path.node(0.6))
        step = g.Step(jnp.asarray(RAW), node, {}, jnp.asarray(restart))
        raw, null = jnp.asarray(RAW), jnp.asarray(NULL)
        view = g.View(jg.Network(None), step)
        sides = Sides(raw, null, jnp.float32(1), view, "denoised")
        found[restart] = one.apply(raw, sides, state)[0]
    close(found[True], RAW)
    close(found[False], RAW + 0.9 * NULL)


def test_a_window_of_maps_remembers_what_it_does_not_change():
    """Before the window the difference is plain; inside, the average is two old."""
    one = g.contrast(
        1.0, g.NULL, maps=(g.within(0.0, 0.5, g.momentum(0.5)),), space="denoised"
    )
    out = march(one, [RAW] * 3, [NULL] * 3, (0.9, 0.6, 0.3))
    for found, share in zip(out, (1, 1, 1.75), strict=True):
        close(found, RAW + share * (RAW - NULL))


@pytest.mark.parametrize("radius", [0.0, 2.0, 4.2, 9.0])
def test_a_norm_is_clipped_per_sample_and_keeps_its_direction(radius):
    raw, null = predictions(spread=np.float32(0.6))
    null = raw + (null - raw) * columns([0.5, 1.0, 2.0], raw).astype(np.float32)
    out, plain = mapped(g.clip_norm(radius), raw=raw, null=null), raw - null
    np.testing.assert_allclose(length(out), np.minimum(length(plain), radius), 1e-5)
    parallel = inner(out, plain)
    np.testing.assert_allclose(parallel, length(out) * length(plain), rtol=1e-5)


def test_a_projection_leaves_nothing_along_its_axis():
    other, third = predictions(seed=5)
    cases = [(g.project(0.0), RAW), (g.project(0.0, about=g.NULL), NULL)]
    ends = (g.Branch(cond="other"), g.Branch(cond="third"))
    cases.append((g.project(0.0, about=ends), other - third))
    for one, axis in cases:
        term = g.contrast(1.0, g.NULL, maps=(one,), space="denoised")
        out = guided(term, RAW, NULL, other=other, third=third) - RAW
        cosine = inner(out, axis) / (length(out) * length(axis))
        np.testing.assert_allclose(cosine, 0, atol=1e-6)
        along = RAW - NULL - out  # what was taken away lies on the axis
        np.testing.assert_allclose(
            np.abs(inner(along, axis)), length(along) * length(axis), rtol=1e-5
        )


def test_powers_of_the_norm():
    np.testing.assert_allclose(length(mapped(g.norm_power(1.0))), 1, rtol=1e-5)
    half = length(mapped(g.norm_power(0.5)))
    np.testing.assert_allclose(half, np.sqrt(length(RAW - NULL)), rtol=1e-5)


def test_damping_compares_with_the_reference():
    share = np.exp(-1.5 * length(RAW - NULL) / length(NULL))
    close(mapped(g.damp(1.5)), columns(share, RAW) * (RAW - NULL))


# Frequency bands.


@pytest.mark.parametrize(("shape", "levels"), LEVELS, ids=str)
def test_bands_add_up_to_the_whole(shape, levels):
    raw, null = predictions(shape)
    cutoffs = tuple(0.4 / 2**i for i in range(levels - 1))
    for one in (g.laplacian((1.0,) * levels), g.frequency((1.0,) * levels, cutoffs)):
        close(mapped(one, raw=raw, null=null), raw - null)
    parts = []
    for index in range(levels):
        alone = tuple(1.0 if i == index else None for i in range(levels))
        parts.append(mapped(g.laplacian(alone), raw=raw, null=null))
    close(sum(parts), raw - null)


@pytest.mark.parametrize(("shape", "levels"), LEVELS, ids=str)
def test_equal_scales_are_cfg(shape, levels):
    raw, null = predictions(shape)
    want = guided(jg.cfg(3.0), raw, null)
    cutoffs = tuple(0.4 / 2**i for i in range(levels - 1))
    whole = jg.fdg((3.0,) * levels)
    close(guided(whole, raw, null), want)
    close(guided(jg.fdg((3.0,) * levels, parallel=1.0), raw, null), want)
    close(guided(jg.frequency_cfg((3.0,) * levels, cutoffs=cutoffs), raw, null), want)


@pytest.mark.parametrize("make", [jg.fdg, jg.frequency_cfg])
def test_a_band_of_scale_one_is_off_at_no_cost(make):
    assert make((1.0, 5.0)).live(0.5) == (False, True)
    low = guided(make((1.0, 5.0)), RAW, NULL)
    high = guided(make((5.0, 1.0)), RAW, NULL)
    close(low + high - RAW, guided(jg.cfg(5.0), RAW, NULL))
    same = guided(make((1.0, 1.0)), RAW, NULL)
    np.testing.assert_array_equal(same, RAW)


@pytest.mark.parametrize("make", [jg.fdg, jg.frequency_cfg])
def test_what_is_constant_in_space_has_the_scale_of_the_lowest_band(make):
    null = RAW - np.float32(0.7)
    close(guided(make((50.0, 4.0)), RAW, null), null + 4.0 * (RAW - null))


def test_the_highest_frequency_has_the_scale_of_the_highest_band():
    rows, columns_ = np.indices((4, 6))
    checks = ((-1.0) ** (rows + columns_))[None, :, :, None].astype(np.float32)
    null = RAW - checks
    close(guided(jg.frequency_cfg((4.0, 50.0)), RAW, null), null + 4.0 * checks)


def test_fourier_bands_are_orthogonal():
    parts = [mapped(g.frequency(w, (0.3,))) for w in ((1.0, None), (None, 1.0))]
    np.testing.assert_allclose(inner(*parts), 0, atol=1e-4)
    assert all(np.all(length(part) > 1) for part in parts)


def pixel_pyramid(x, levels):
    """Laplacian pyramid of [H, W], pixel by pixel, with scipy's filter."""
    kernel = np.array([1, 4, 6, 4, 1]) / 16

    def blur(x):
        for axis in (0, 1):
            x = ndimage.correlate1d(x, kernel, axis, mode="mirror")
        return x

    def resize(x, shape):
        for axis, new in enumerate(shape):
            old = x.shape[axis]
            places = (np.arange(new) + 0.5) * old / new - 0.5
            take = functools.partial(np.interp, places, np.arange(old))
            x = np.apply_along_axis(take, axis, x)
        return x

    found = []
    for _ in range(levels - 1):
        smaller = resize(blur(x), [side // 2 for side in x.shape])
        found.append(x - blur(resize(smaller, x.shape)))
        x = smaller
    return [*found, x]


@pytest.mark.parametrize("shape", [(8, 12), (9, 6), (7, 5)], ids=str)
def test_the_pyramid_is_the_slow_one(shape):
    x = np.random.default_rng(0).normal(size=shape)
    want = pixel_pyramid(x, 2)
    found = pyramids.pyramid(jnp.asarray(x, jnp.float32)[None, :, :, None], 2, (1, 2))
    for (level, sizes), slow in zip(found, want, strict=True):
        assert tuple(sizes) == slow.shape
        close(level[0, :, :, 0], slow)


def test_axes_say_where_space_is():
    moved = guided(
        jg.fdg((5.0, 2.0), axes=(2, 3)), RAW.transpose(0, 3, 1, 2),
        NULL.transpose(0, 3, 1, 2),
    )  # fmt: skip
    close(moved.transpose(0, 2, 3, 1), guided(jg.fdg((5.0, 2.0)), RAW, NULL))
