"""Guidance from inside the transformer, against a slow forward pass in float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxguide as jg
from jaxguide import guidance, models, paths
from tests import dit_reference as slow
from tests.contract.common import rest
from tests.models.test_dit import inputs, randomised

FAST_COMPILE = True
CONFIG = models.DiTConfig(
    image_size=(8, 6), channels=2, patch=2, width=16, depth=4, heads=2, num_classes=5
)
PARAMS = randomised(CONFIG)
PARAMS["blocks"]["qkv"]["kernel"] *= 3  # attention that is far from even
ROWS, COLUMNS = CONFIG.grid
COUNT = ROWS * COLUMNS
X, _, LABEL = inputs(CONFIG)
CONDS = {"null": jnp.full(2, 5, jnp.int32), "negative": (LABEL + 1) % 5}
T, KEY = 0.6, jax.random.key(3)
DRAW = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), 0)
TIGHT = dict(atol=1e-5, rtol=1e-5)


def one_time(config, params):
    """The network as a function that also takes one time for all samples."""

    def predict(x, t, label, **taps):
        t = jnp.broadcast_to(jnp.float32(t), (len(x),))
        return models.Predictor(config)(params, x, t, label, **taps)

    return predict


predict = one_time(CONFIG, PARAMS)


def guided(transform, t=T, network=predict, **facts):
    """The guided velocity at one step, as a user of `guide` gets it."""
    facts = dict(depth=CONFIG.depth, tokens=CONFIG.grid) | facts
    guide = jg.guide(network, transform, **facts)

    @jax.jit
    def run(x):
        state = guide.init(x)
        return guide(x, t, LABEL, state, conds=CONDS, key=KEY)[0]

    return np.asarray(run(X))


def network(**facts):
    """The network as a transform sees it."""
    return jg.Network(predict, depth=CONFIG.depth, tokens=CONFIG.grid, **facts)


def view():
    """What the change of a branch sees."""
    step = jg.Step(X, None, {"cond": LABEL}, jnp.zeros((), bool))
    return guidance.View(network(), step)


def reference(t=T, label=LABEL, x=X, **changes):
    return slow.forward(CONFIG, PARAMS, x, np.full(len(x), t), label, **changes)


@functools.cache
def raw(t=T):
    return reference(t)


def push(weight, perturbed, t=T):
    return raw(t) + weight * (raw(t) - perturbed)


def in_blocks(layers, changed):
    """`changed(q, k, v)` in these blocks, softmax attention in the others."""

    def attention(q, k, v, index):
        if index in layers:
            return changed(q, k, v)
        return slow.plain_attention(q, k, v, index)

    return attention


def check(transform, expected, t=T):
    assert np.abs(expected - raw(t)).max() > 1e-2
    np.testing.assert_allclose(guided(transform, t), expected, **TIGHT)


# The forward pass itself.


def test_the_slow_forward_pass_is_the_network():
    np.testing.assert_allclose(guided(jg.chain()), raw(), **TIGHT)
    assert np.abs(raw()).max() > 0.3


# PAG and SEG.


def identity(q, k, v):
    count = q.shape[2]
    return np.eye(count) @ v


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [("middle", [2]), ("all", [0, 1, 2, 3]), (("first", -1), [0, 3])],
)
def test_pag_puts_the_identity_in_the_place_of_the_attention_map(layers, blocks):
    perturbed = reference(attention=in_blocks(blocks, identity))
    check(jg.pag(1.7, layers=layers), push(1.7, perturbed))


def smoothed(sigma):
    """Attention whose queries went through scipy's one-dimensional filters."""

    def changed(q, k, v):
        grid = q.reshape(*q.shape[:2], ROWS, COLUMNS, q.shape[-1])
        for axis in (2, 3):
            taps = math.ceil(6 * sigma)
            taps += 1 - taps % 2
            taps = min(taps, grid.shape[axis] - (grid.shape[axis] % 2 - 1))
            kernel = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / sigma**2)
            grid = ndimage.convolve1d(grid, kernel / kernel.sum(), axis, mode="mirror")
        return slow.softmax_map(grid.reshape(q.shape), k) @ v

    return changed


@pytest.mark.parametrize("sigma", [0.7, 40.0, *rest(0.3, 1.5)])
def test_seg_blurs_the_queries_over_the_grid_of_tokens(sigma):
    perturbed = reference(attention=in_blocks([1, 2], smoothed(sigma)))
    check(jg.seg(4.0, layers="1-2", sigma=sigma), push(4.0, perturbed))


def mean_query(q, k, v):
    mean = q.mean(axis=2, keepdims=True).repeat(q.shape[2], axis=2)
    return slow.softmax_map(mean, k) @ v


def test_seg_without_end_is_the_mean_query():
    perturbed = reference(attention=in_blocks([2], mean_query))
    check(jg.seg(4.0), push(4.0, perturbed))


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 1.0, 3.0, math.inf])
def test_a_blur_keeps_constants_and_the_identity_at_zero(size, sigma):
    matrix = guidance._blur.blur_matrix(size, sigma)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)
    assert matrix.min() >= 0
    assert np.array_equal(matrix, np.eye(size)) == (6 * sigma <= 1 or size == 1)


# STG, SLG, TPG.


@pytest.mark.parametrize("skip", ["block", "attention", "mlp", "scores"])
def test_stg_leaves_its_part_out(skip):
    def block(run, tokens, index):
        if index not in (1, 3):
            return run(tokens)
        parts = dict(attend=skip != "attention", mlp=skip != "mlp")
        return tokens if skip == "block" else run(tokens, **parts)

    attention = in_blocks((1, 3), identity) if skip == "scores" else None
    changes = dict(attention=attention) if attention else dict(block=block)
    check(jg.stg(0.8, layers=(1, 3), skip=skip), push(0.8, reference(**changes)))


def test_skip_layer_guidance_is_stg_with_its_numbers():
    left_out = reference(0.9, block=lambda run, x, i: x if i == 2 else run(x))
    slg = jg.stg(2.8, t_lo=0.8, t_hi=0.99)
    check(slg, push(2.8, left_out, 0.9), t=0.9)
    for t in (0.99, 0.79):
        assert not slg.live(t)


def test_s2_with_a_fixed_choice_is_stg(monkeypatch):
    def fixed(self, here):
        return {"keep_blocks": jnp.array([0, 2], jnp.int32)}

    monkeypatch.setattr(guidance.DropBlocks, "taps", fixed)
    both = guided(jg.s2(0.6)), guided(jg.stg(0.6, layers=(1, 3)))
    np.testing.assert_array_equal(*both)


def orders():
    """The order of the tokens in every block, as they are drawn."""
    keys = [jax.random.fold_in(DRAW, i) for i in range(CONFIG.depth)]
    return [np.asarray(jax.random.permutation(key, COUNT)) for key in keys]


def test_tpg_gives_every_token_the_update_of_another():
    def block(run, tokens, index):
        if index == 3:
            return run(tokens)
        out = tokens.copy()
        moved = tokens[:, orders()[index]]
        for place, update in enumerate((run(moved) - moved).swapaxes(0, 1)):
            out[:, place] += update
        return out

    check(jg.tpg(1.3, layers="0-2"), push(1.3, reference(block=block)))


def test_shuffling_whole_blocks_does_nothing_or_only_moves_patches():
    """Why `tpg` keeps the residual stream in place: blocks do not know positions."""
    order = orders()[0]
    back = np.argsort(order)

    def undone(run, tokens, index):
        return run(tokens[:, order])[:, back]

    def left(run, tokens, index):
        return run(tokens[:, order]) if index == 1 else run(tokens)

    np.testing.assert_allclose(reference(block=undone), raw(), atol=1e-12)
    moved = slow.unpatches(slow.patches(raw(), CONFIG)[:, order], CONFIG)
    np.testing.assert_allclose(reference(block=left), moved, atol=1e-12)


def test_tpg_in_the_same_order_is_no_guidance(monkeypatch):
    same = lambda self, key, index, count: jnp.arange(count)  # noqa: E731
    monkeypatch.setattr(guidance.ShuffledTokens, "order", same)
    np.testing.assert_allclose(guided(jg.tpg(1.3)), raw(), **TIGHT)


# NAG.


def two_streams(scale, tau, alpha, power, layers):
    """The prediction of the first of two streams, by the formula, token by token."""

    def attention(q, k, v, index):
        both = slow.plain_attention(q, k, v, index)
        if index not in layers:
            return both
        good, bad = both[:2], both[2:]
        far = scale * good - (scale - 1) * bad
        for b in range(2):
            for n in range(COUNT):
                size = lambda z: (np.abs(z) ** power).sum() ** (1 / power)  # noqa: E731
                ratio = size(far[b, :, n]) / size(good[b, :, n])
                far[b, :, n] *= min(ratio, tau) / ratio
        return np.concatenate([alpha * far + (1 - alpha) * good, bad])

    label = np.concatenate([LABEL, CONDS["negative"]])
    return reference(x=np.concatenate([X, X]), label=label, attention=attention)[:2]


@pytest.mark.parametrize(
    ("norm", "tau", "layers", "blocks"),
    [
        ("l2", 1.2, "all", range(4)),
        pytest.param("l1", 1.2, "all", range(4), marks=pytest.mark.exhaustive),
        pytest.param("l1", 9, 1, [1], marks=pytest.mark.exhaustive),
    ],
)
def test_nag_moves_the_attention_of_the_positive_stream(norm, tau, layers, blocks):
    power = {"l1": 1, "l2": 2}[norm]
    expected = two_streams(6.0, tau, 0.7, power, blocks)
    clipped = two_streams(6.0, 1e9, 0.7, power, blocks)
    assert (np.abs(expected - clipped).max() > 1e-3) == (tau < 2)
    check(jg.nag(6.0, tau=tau, alpha=0.7, layers=layers, norm=norm), expected)


def test_nag_adds_to_what_stands_before_it():
    moved = two_streams(5.0, 2.5, 0.25, 1, range(4))
    null = reference(label=CONDS["null"])
    expected = null + 2.0 * (raw() - null) + (moved - raw())
    check(jg.chain(jg.cfg(2.0), jg.nag()), expected)


def test_nag_is_neutral_at_scale_one_and_at_alpha_zero():
    plain = guided(jg.chain())
    for transform in (jg.nag(1.0), jg.nag(4.0, alpha=0.0), jg.nag(4.0, layers=())):
        assert not transform.live(T)
        np.testing.assert_array_equal(guided(transform), plain)
    traced = jax.jit(lambda s, a: guided_traced(jg.nag(s, alpha=a)))
    for scale, alpha in ((1.0, 0.5), (4.0, 0.0)):
        out = traced(jnp.float32(scale), jnp.float32(alpha))
        np.testing.assert_allclose(out, plain, atol=1e-6)


def guided_traced(transform):
    guide = jg.guide(predict, transform, depth=CONFIG.depth, tokens=CONFIG.grid)
    return guide(X, T, LABEL, guide.init(X), conds=CONDS, key=KEY)[0]


def test_the_three_numbers_of_nag_are_traced():
    run = jax.jit(lambda s, tau, a: guided_traced(jg.nag(s, tau=tau, alpha=a)))
    for numbers in ((6.0, 1.2, 0.7), (3.0, 2.0, 0.5)):
        out = run(*map(jnp.float32, numbers))
        np.testing.assert_allclose(out, two_streams(*numbers, 1, range(4)), **TIGHT)
    assert run._cache_size() == 1


# SAG.


def received(label, blocks):
    """How much attention each token receives, [B, N], averaged over these blocks."""
    found = []

    def attention(q, k, v, index):
        if index in blocks:
            found.append(slow.softmax_map(q, k).mean(axis=1).sum(axis=1))
        return slow.plain_attention(q, k, v, index)

    reference(label=label, attention=attention)
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    ("cond", "layer", "blocks", "threshold"),
    [
        ("cond", (0, 3), [0, 3], 1.1),
        pytest.param("null", "middle", [2], 1.0, marks=pytest.mark.exhaustive),
    ],
)
def test_sag_blurs_what_is_looked_at_and_asks_again(cond, layer, blocks, threshold):
    label = LABEL if cond == "cond" else CONDS["null"]
    x = np.asarray(X, np.float64)
    plain = reference(label=label)
    clean, noise = x - T * plain, x + (1 - T) * plain
    mask = received(label, blocks) > threshold
    assert 0 < mask.sum() < mask.size
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 0.9) ** 2)
    kernel /= kernel.sum()
    soft = clean
    for axis in (1, 2):
        soft = ndimage.convolve1d(soft, kernel, axis, mode="mirror")
    pixels = mask.reshape(2, ROWS, COLUMNS).repeat(2, 1).repeat(2, 2)[..., None]
    again = (1 - T) * np.where(pixels, soft, clean) + T * noise
    other = again + (1 - T) * reference(x=again, label=label)
    guided_noise = x + (1 - T) * raw() + 0.6 * (noise - other)
    expected = (guided_noise - x) / (1 - T)
    options = dict(sigma=0.9, threshold=threshold, layer=layer, cond=cond)
    check(jg.sag(0.6, **options), expected)
    # ComfyUI's form of the same: degraded - denoised(degraded), added to clean data.
    again_clean = again - T * reference(x=again, label=label)
    moved = x - T * raw() + 0.6 * (np.where(pixels, soft, clean) - again_clean)
    np.testing.assert_allclose((x - moved) / T, expected, atol=1e-12)


def test_the_record_is_the_attention_received():
    _, _, record = predict(X, jnp.full(2, T), LABEL, record_attention=True)
    assert record.shape == (2, CONFIG.depth, COUNT) and record.dtype == jnp.float32
    for i in range(CONFIG.depth):
        np.testing.assert_allclose(record[:, i], received(LABEL, [i]), **TIGHT)
    np.testing.assert_allclose(record.mean(axis=2), 1, rtol=1e-5)


# TSG.


@pytest.mark.parametrize(("std", "power"), [(2.0, 1.0), (0.7, 0.0)])
def test_tsg_adds_noise_in_units_of_the_embedding(std, power):
    noise = np.asarray(jax.random.normal(DRAW, (2, CONFIG.width)), np.float64)

    def embed(embedding):
        spread = np.stack([np.full(CONFIG.width, row.std()) for row in embedding])
        return embedding + std * T**power * spread * noise

    noisy = reference(embed=embed)
    transform = jg.tsg(2.5, std=std, power=power)
    check(transform, noisy + 2.5 * (raw() - noisy))


def test_tsg_without_noise_is_no_guidance():
    np.testing.assert_allclose(guided(jg.tsg(3.0, std=0.0)), raw(), **TIGHT)


def test_the_noise_of_tsg_is_traced_and_may_differ_between_samples():
    run = jax.jit(lambda std: guided_traced(jg.tsg(2.0, std=std)))
    both = run(jnp.array([0.0, 1.5]))
    single = run(jnp.array([1.5, 1.5]))
    np.testing.assert_allclose(both[0], raw()[0], **TIGHT)
    np.testing.assert_allclose(both[1], single[1], atol=1e-6)
    assert np.abs(single[0] - raw()[0]).max() > 1e-2


# What costs nothing, and what is saved.


@pytest.mark.parametrize(
    "transform",
    [
        jg.pag(2.0, layers=()),
        jg.seg(2.0, layers=()),
        jg.seg(2.0, sigma=0.0),
        jg.stg(2.0, layers=()),
        jg.tpg(2.0, layers=()),
        jg.nag(2.0, layers=()),
    ],
    ids=["pag", "seg", "seg0", "stg", "tpg", "nag"],
)
def test_no_layers_are_no_guidance_at_no_cost(transform):
    cost = jg.cost(network(), transform, np.array([0.9, 0.5, 0.1]), jg.euler())
    assert cost.nfe == 2


def test_skipped_blocks_are_subtracted_from_the_flops():
    total, block = models.flops(CONFIG)
    facts = network(flops=float(total), block_flops=float(block))
    grid = np.array([0.9, 0.5])
    skipped = jg.cost(facts, jg.stg(layers=(1, 3)), grid, jg.euler())
    assert skipped.flops == 2 * total - 2 * block
    for transform in (jg.pag(), jg.seg(), jg.stg(skip="mlp"), jg.tpg(), jg.tsg()):
        assert jg.cost(facts, transform, grid, jg.euler()).flops == 2 * total
    assert jg.cost(facts, jg.nag(), grid, jg.euler()).nfe == 3


def test_a_replaced_attention_is_not_computed():
    """Also in a scan over blocks, where the index is traced."""
    seen = []
    tap = guidance.IdentityAttention((0, "middle"))
    attention = tap.taps(view())["attention"]

    def watched(run, q, k, v, index):
        def counting(q, k, v):
            jax.debug.callback(lambda: seen.append(1))
            return run(q, k, v)

        return attention(counting, q, k, v, index)

    run = jax.jit(lambda x: predict(x, T, LABEL, attention=watched))
    jax.block_until_ready(run(X))
    jax.effects_barrier()
    assert len(seen) == CONFIG.depth - 2


# Which layers.


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        (3, (3,)),
        (-1, (9,)),
        ("first", (0,)),
        ("middle", (5,)),
        ("last", (9,)),
        ("all", tuple(range(10))),
        ("2-5", (2, 3, 4, 5)),
        ("7", (7,)),
        (("last", 0, "1-2", -1, 0), (0, 1, 2, 9)),
        ((), ()),
    ],
)
def test_layers_by_name_and_index(layers, found):
    ten = jg.Network(lambda x, t, c: x, depth=10)
    assert guidance._layers.find_layers("pag", layers, ten) == found


@pytest.mark.parametrize("layers", ["outer", "5-2", "-1", 1.5, True, ("first", "x")])
@pytest.mark.parametrize("make", [jg.pag, jg.seg, jg.stg, jg.tpg, jg.nag])
def test_layers_that_mean_nothing_are_refused_where_they_are_made(make, layers):
    with pytest.raises(ValueError, match=r"need layers as an index, a range '2-5'"):
        make(layers=layers)


PLAIN = jax.tree_util.Partial(lambda x, t, label: x)


@pytest.mark.parametrize(
    ("transform", "options", "match"),
    [
        (jg.pag(layers=4), {}, r"pag: need layers inside -4\.\.3, got layers=4"),
        (jg.stg(layers="3-4"), {}, r"stg: need layers inside -4\.\.3"),
        (jg.seg(), dict(depth=0), "seg: need a network with blocks, got depth=0"),
        (jg.seg(), dict(tokens=(3, 3)), r"need the grid of 12 tokens, got .*\(3, 3\)"),
        (jg.seg(), dict(tokens=None), "seg: need the grid of 12 tokens, got .*None"),
        (jg.sag(), dict(tokens=(3, 4)), "grid of tokens that divides the image"),
        (jg.pag(), dict(network=PLAIN), "pag: need a network .* takes attention="),
        (jg.stg(), dict(network=PLAIN), "stg: need a network .* takes keep_blocks="),
        (jg.tpg(), dict(network=PLAIN), "tpg: need a network .* takes block="),
        (jg.nag(), dict(network=PLAIN), "nag: need a network .* takes attention="),
        (jg.sag(), dict(network=PLAIN), "sag: .* takes record_attention="),
        (jg.tsg(), dict(network=PLAIN), "tsg: .* takes time_embedding=, got predict"),
    ],
)
def test_a_network_that_does_not_fit_is_named(transform, options, match):
    with pytest.raises(ValueError, match=match):
        guided(transform, **options)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.seg(sigma=-1.0), "seg: need sigma >= 0, got sigma=-1.0"),
        (lambda: jg.seg(sigma=math.nan), "seg: need a finite sigma"),
        (lambda: jg.stg(skip="half"), "stg: need skip in .* got skip='half'"),
        (lambda: jg.nag(tau=0.5), "nag: need tau >= 1, got tau=0.5"),
        (lambda: jg.nag(alpha=1.5), "nag: need alpha <= 1, got alpha=1.5"),
        (lambda: jg.nag(alpha=-0.5), "nag: need alpha >= 0, got alpha=-0.5"),
        (lambda: jg.nag(norm="l3"), "nag: need norm in .* got norm='l3'"),
        (lambda: jg.sag(sigma=0), "sag: need sigma > 0, got sigma=0"),
        (lambda: jg.sag(layer=()), r"sag: need a layer to read, got layer=\(\)"),
        (lambda: jg.tsg(std=-1.0), "tsg: need std >= 0, got std=-1.0"),
        (lambda: jg.tsg(power=-1.0), "tsg: need power >= 0, got power=-1.0"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_sag_needs_images():
    model = jg.Network(
        lambda x, t, c, **taps: (x, None, jnp.ones((2, 1, 4))), depth=1, tokens=(2, 2)
    )
    with pytest.raises(ValueError, match=r"sag: need images \[B, H, W, ...\]"):
        jg.generate(
            model, jnp.ones((2, 4)), LABEL, grid=np.array([0.9, 0.5]),
            sampler=jg.euler(), guidance=jg.sag(cond="cond"),
        )  # fmt: skip


def test_a_square_of_tokens_is_assumed_where_the_network_does_not_say():
    square = models.DiTConfig(
        image_size=6, channels=2, patch=2, width=16, depth=2, heads=2, num_classes=5
    )
    model = one_time(square, randomised(square))
    x, t, label = inputs(square)
    outs = []
    for tokens in (None, (3, 3), (1, 9)):
        guide = jg.guide(model, jg.seg(9.0, sigma=0.6), depth=2, tokens=tokens)
        run = jax.jit(lambda x, guide=guide: guide(x, t, label, guide.init(x))[0])
        outs.append(np.asarray(run(x)))
    np.testing.assert_array_equal(outs[0], outs[1])
    assert np.abs(outs[0] - outs[2]).max() > 1e-3


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["noise", "denoised"])
def test_sag_is_the_same_for_every_kind_of_network(kind):
    """Its difference is one of noises, whatever the network predicts."""
    path = paths.Linear()

    def other(x, t, label, **taps):
        out = predict(x, t, label, **taps)
        velocity, *rest = out if isinstance(out, tuple) else (out,)
        node = jax.tree.map(jnp.asarray, path.node(t))
        out = paths.convert(velocity, x, node, "velocity", kind)
        return (out, *rest) if rest else out

    velocity = guided(jg.sag(0.6))
    out = guided(jg.sag(0.6), network=other, kind=kind)
    node = jax.tree.map(jnp.asarray, path.node(T))
    back = paths.convert(jnp.asarray(out), X, node, kind, "velocity")
    np.testing.assert_allclose(back, velocity, atol=2e-5)
