"""Blurred inputs and sliding windows against slow loops; what crops cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxguide as jg
from jaxguide.guidance import BlurredInput, crops, predict_branches
from tests import transforms as tf

FAST_COMPILE = True
SHAPE = (8, 8, 2)
BATCH = 3
LABEL = jnp.arange(BATCH, dtype=jnp.int32)
GRID = np.array([0.9, 0.6, 0.3])


def smear(weights, x, t, label):
    """A network for images of any size that looks at the whole image."""
    t, label = (v.astype(x.dtype).reshape(-1, 1, 1, 1) for v in (t, label))
    far = x.mean(axis=(1, 2), keepdims=True)
    return jnp.tanh(weights[0].astype(x.dtype) * x + t) + (1 + label) * far


def probe():
    return tf.Probe(smear, jnp.asarray([1.2]), flops=1000.0)


def noise(dtype=jnp.float32):
    return jax.random.normal(jax.random.key(3), (BATCH, *SHAPE), dtype)


def run(guidance, watched=None, **options):
    watched = probe() if watched is None else watched
    settings = dict(grid=GRID, sampler=jg.euler(), guidance=guidance) | options
    with jax.disable_jit():
        out = jg.generate(watched.network(), noise(), LABEL, **settings)
    return np.asarray(out), watched


def slow_windows(x, t, length, places):
    """Every crop by itself, pasted back and divided by how often it was covered."""
    total, count = np.zeros(x.shape), np.zeros(x.shape)
    for top in places:
        for left in places:
            box = np.s_[:, top : top + length, left : left + length]
            crop = jnp.asarray(x[box], jnp.float32)
            times = jnp.full(len(x), t, jnp.float32)
            total[box] += smear(jnp.asarray([1.2]), crop, times, LABEL)
            count[box] += 1
    return total / np.maximum(count, 1), count


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_sliding_windows_are_the_loop_over_crops(masked, batched):
    guidance = jg.sliding_window(0.7, size=0.625, crops=2, masked=masked)
    out, watched = run(guidance, batched=batched)
    x = np.asarray(noise(), np.float64) * 0.9
    for t, s in zip(GRID[:-1], GRID[1:], strict=True):
        raw, _ = slow_windows(x, t, 8, (0,))
        away, count = slow_windows(x, t, 5, (0, 3))
        mask = count > 1 if masked else 1.0
        x = x + (s - t) * (raw + 0.7 * mask * (raw - away))
    np.testing.assert_allclose(out, x, atol=2e-5)
    assert sorted({seen.rows for seen in watched.calls}) == [BATCH, 4 * BATCH]


def test_every_crop_counts_as_an_evaluation_of_its_own_size():
    guidance = jg.sliding_window(0.7, size=0.625, crops=2, t_lo=0.5)
    _, watched = run(guidance)
    cost = jg.cost(watched.network(), guidance, GRID, jg.euler())
    assert cost.nfe == watched.evaluations(BATCH) == 2 + 2 * 4
    assert cost.unguided_nfe == 2
    pixels = 2 + 2 * 4 * 0.625**2
    np.testing.assert_allclose(cost.flops, 1000 * pixels, rtol=1e-12)


def test_windows_without_weight_are_bitwise_nothing_and_free():
    plain, _ = run(None)
    out, watched = run(jg.sliding_window(0.0))
    np.testing.assert_array_equal(out, plain)
    assert watched.evaluations(BATCH) == 2


def test_the_weight_of_windows_is_traced():
    def end(weight):
        network = jg.Network(jax.tree_util.Partial(smear, jnp.asarray([1.2])))
        guidance = jg.sliding_window(weight)
        options = dict(grid=GRID, sampler=jg.euler(), guidance=guidance)
        return jg.generate(network, noise(), LABEL, **options)

    grid = jax.jit(jax.vmap(end))
    for weights in ([0.3, 0.9], [1.5, 0.0]):
        found = grid(jnp.asarray(weights))
        for one, weight in zip(found, weights, strict=True):
            want, _ = run(jg.sliding_window(weight))
            np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-5)
    assert grid._cache_size() == 1


def test_one_window_over_everything_is_the_network_itself():
    plain, _ = run(None)
    out, _ = run(jg.sliding_window(0.9, size=1.0, crops=1, masked=False))
    np.testing.assert_array_equal(out, plain)


def test_the_term_vanishes_outside_the_overlap():
    plain, _ = run(None, grid=GRID[:2])
    out, _ = run(jg.sliding_window(0.9), grid=GRID[:2])
    moved = np.abs(out - plain).max(axis=(0, 3)) > 1e-6
    want = np.zeros((8, 8), bool)
    want[3:5, :] = want[:, 3:5] = True
    np.testing.assert_array_equal(moved, want)


def test_a_network_of_crops_serves_as_another_network():
    watched = probe()
    other = crops(watched.network(), size=0.625, count=2)
    assert other.calls == 4
    guidance = jg.reference_network(1.7, network="crops")
    out, _ = run(guidance, networks={"crops": other})
    want, _ = run(jg.sliding_window(0.7, masked=False))
    np.testing.assert_allclose(out, want, atol=1e-6)
    cost = jg.cost(
        watched.network(), guidance, GRID, jg.euler(), networks={"crops": other}
    )
    assert cost.nfe == 2 + 2 * 4


def test_crops_begin_and_end_between_tokens():
    network = jg.Network(probe().network().predict, tokens=(4, 4))
    seen = []

    def record(x, t, label):
        seen.append(x.shape[1:3])
        return network.predict(x, t, label)

    watched = jg.Network(record, tokens=(4, 4))
    x = noise()
    crops(watched, size=0.625, count=2).predict(x, jnp.full(BATCH, 0.5), LABEL)
    assert seen == [(4, 4)]  # two tokens of two pixels, not five pixels


def test_crops_reach_the_edge_where_their_distance_is_no_divisor():
    """The official code leaves the last rows out there, and divides by zero."""
    network = crops(probe().network(), size=0.5, count=4)
    x = noise()[:, :7, :7]
    out = network.predict(x, jnp.full(BATCH, 0.5), LABEL)
    want, count = slow_windows(np.asarray(x, np.float64), 0.5, 4, (0, 1, 2, 3))
    assert count.min() >= 1
    np.testing.assert_allclose(out, want, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_crops_keep_the_dtype(dtype):
    network = crops(probe().network())
    out = jax.eval_shape(
        network.predict, noise(dtype), jnp.full(BATCH, 0.5, dtype), LABEL
    )
    assert out.dtype == dtype and out.shape == (BATCH, *SHAPE)


def test_the_blur_of_the_denoised_image_is_a_gaussian_filter():
    network = jg.Network(lambda x, t, label: 0.5 * x)
    x, t = noise(), 0.6
    node = jax.tree.map(jnp.float32, network.path.node(t))
    step = jg.Step(x, node, {"cond": LABEL}, jnp.zeros((), bool))
    view, _ = predict_branches({"main": network}, (), step)
    clean = np.asarray(x, np.float64) * (1 - t * 0.5)
    eps = np.asarray(x, np.float64) * (1 + (1 - t) * 0.5)
    sigma, radius = 0.8, 2
    filtered = ndimage.gaussian_filter(
        clean, sigma=(0, sigma, sigma, 0), mode="mirror", truncate=radius / sigma
    )
    got = BlurredInput(sigma, "denoised").x(view)
    np.testing.assert_allclose(got, (1 - t) * filtered + t * eps, atol=1e-5)
    state = BlurredInput(float("inf"), "state").x(view)
    mean = np.broadcast_to(np.asarray(x).mean(axis=(1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(state, mean, atol=1e-6)


def test_a_narrow_blur_does_nothing():
    plain, _ = run(None)
    out, watched = run(jg.blurred_input(2.0, sigma=0.05))
    np.testing.assert_allclose(out, plain, atol=1e-5)
    assert watched.evaluations(BATCH) == 4


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.blurred_input(1.0, sigma=0.0), "blurred_input: need sigma > 0"),
        (lambda: jg.blurred_input(1.0, what="x"), "blurred_input: need what in"),
        (lambda: jg.blurred_input(1.0, space="any"), "need a space other than 'any'"),
        (lambda: jg.sliding_window(1.0, size=0.0), "sliding_window: need 0 < size"),
        (lambda: jg.sliding_window(1.0, crops=0), "an integer crops >= 1, got"),
        (lambda: jg.sliding_window(1.0, size=0.5), "need crops that overlap"),
        (lambda: jg.sliding_window(1.0, size=float("nan")), "need a finite size"),
    ],
)
def test_bad_settings_are_refused_where_they_are_made(make, match):
    with pytest.raises(ValueError, match=match):
        make()
