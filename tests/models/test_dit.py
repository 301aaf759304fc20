"""The transformer: size, taps, shapes, and agreement with an unrolled reference."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxguide import models

FAST_COMPILE = True
SMALL = models.DiTConfig(
    image_size=(8, 4),
    channels=3,
    patch=2,
    width=32,
    depth=4,
    heads=2,
    num_classes=5,
)


forward = jax.jit(models.apply, static_argnums=0, static_argnames="attention")


def randomised(config, seed=0):
    """Parameters of the right shapes without the zero initialisation."""
    shapes = jax.eval_shape(lambda key: models.init(config, key), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = 0.5 / math.sqrt(leaf.shape[-2] if len(leaf.shape) > 1 else 4)
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree.map(draw, shapes)


def fresh(config):
    return jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))


def inputs(config, batch=2, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *config.image_shape)).astype(np.float32)
    t = rng.uniform(size=batch).astype(np.float32)
    label = rng.integers(0, config.num_classes + 1, batch).astype(np.int32)
    return jnp.asarray(x), jnp.asarray(t), jnp.asarray(label)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("S/2", 32_963_360),
        ("B/2", 130_512_416),
        ("L/2", 458_102_816),
        ("XL/2", 675_129_632),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(name, count):
    assert models.parameter_count(models.dit_config(name, learn_sigma=True)) == count


def test_sit_xl_without_variance_has_the_published_number_of_parameters():
    assert models.parameter_count(models.dit_config("XL/2")) == 675_111_184


def test_flops_of_xl_2_are_the_published_118_6_gmacs():
    total, block = models.flops(models.dit_config("XL/2", learn_sigma=True))
    assert round(total / 2e9, 1) == 118.6
    assert 28 * block < total < 28.1 * block


@pytest.mark.parametrize(
    "kept",
    [
        [1, 0],
        pytest.param([0, 1, 2, 3], marks=pytest.mark.exhaustive),
        pytest.param([0, 2, 3], marks=pytest.mark.exhaustive),
    ],
)
def test_keep_blocks_equals_a_network_that_has_only_those_blocks(kept):
    params, batch = randomised(SMALL), inputs(SMALL)
    shorter = dict(params)
    shorter["blocks"] = jax.tree.map(
        lambda leaf: leaf[np.array(kept)], params["blocks"]
    )
    config = dataclasses.replace(SMALL, depth=len(kept))
    expected = forward(config, shorter, *batch)
    actual = forward(SMALL, params, *batch, keep_blocks=jnp.array(kept, jnp.int32))
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_another_choice_of_blocks_compiles_nothing():
    params, batch = randomised(SMALL), inputs(SMALL)
    choose = jax.jit(lambda keep: models.apply(SMALL, params, *batch, keep_blocks=keep))
    results = [choose(jnp.array(keep)) for keep in ([0, 1, 3], [0, 2, 3], [1, 2, 3])]
    assert choose._cache_size() == 1
    assert float(jnp.abs(results[0] - results[1]).max()) > 1e-3


def test_dropped_blocks_are_not_computed():
    params, batch = randomised(SMALL), inputs(SMALL)
    seen = []

    def counting(run, q, k, v, index):
        jax.debug.callback(lambda i: seen.append(int(i)), index, ordered=True)
        return run(q, k, v)

    keep = jnp.array([0, 3], jnp.int32)
    out = forward(SMALL, params, *batch, keep_blocks=keep, attention=counting)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert seen == [0, 3]


def test_attention_tap_sees_heads_first_and_its_block_and_can_replace_attention():
    params, batch = randomised(SMALL), inputs(SMALL)
    shapes = []

    def same(run, q, k, v, index):
        shapes.append((q.shape, k.shape, v.shape, index.shape, index.dtype))
        return run(q, k, v)

    def identity_in_block_2(run, q, k, v, index):
        usual = run(q, k, v)
        return jnp.where(index == 2, v, usual)

    plain = forward(SMALL, params, *batch)
    np.testing.assert_array_equal(plain, forward(SMALL, params, *batch, attention=same))
    assert shapes[0] == (*[(2, 2, 8, 16)] * 3, (), jnp.int32)
    changed = forward(SMALL, params, *batch, attention=identity_in_block_2)
    assert float(jnp.abs(plain - changed).max()) > 1e-3


def test_softmax_attention_equals_jax():
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, 3, 5, 8)) for key in keys)
    ours = models.softmax_attention(q, k, v)
    swap = (0, 2, 1, 3)
    theirs = jax.nn.dot_product_attention(
        q.transpose(swap), k.transpose(swap), v.transpose(swap)
    )
    np.testing.assert_allclose(ours, theirs.transpose(swap), atol=1e-6)


def test_a_fresh_network_returns_zeros():
    params = fresh(SMALL)
    assert not np.any(forward(SMALL, params, *inputs(SMALL)))


def test_initial_weights_follow_the_published_rules():
    config = dataclasses.replace(SMALL, width=128)
    params = fresh(config)
    for stacked, fans in (("qkv", 128 + 384), ("fc1", 128 + 512)):
        kernel = params["blocks"][stacked]["kernel"]
        limit = math.sqrt(6 / fans)
        assert limit * 0.98 < float(jnp.abs(kernel).max()) <= limit
        assert not np.array_equal(kernel[0], kernel[1])
    for name in ("time_in", "time_out"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.02, rtol=0.05)
    np.testing.assert_allclose(params["label_table"].std(), 0.02, rtol=0.1)


def test_position_table_separates_columns_from_rows():
    table = np.asarray(fresh(SMALL)["pos_embed"])
    grid = table.reshape(4, 2, 32)
    assert np.ptp(grid[..., :16], axis=0).max() == 0, "first half: column alone"
    assert np.ptp(grid[..., 16:], axis=1).max() == 0, "second half: row alone"
    np.testing.assert_allclose(grid[1, 0, 16], math.sin(1.0), rtol=1e-6)
    np.testing.assert_allclose(grid[1, 0, 24], math.cos(1.0), rtol=1e-6)


def test_the_position_table_gets_no_gradient():
    params, (x, t, label) = randomised(SMALL), inputs(SMALL)
    loss = jax.jit(jax.grad(lambda p: jnp.square(forward(SMALL, p, x, t, label)).sum()))
    grads = loss(params)
    assert not np.any(grads["pos_embed"])
    assert np.any(grads["patch_in"]["kernel"])


@pytest.mark.exhaustive  # programs of gradients
@pytest.mark.parametrize("how", [True, "dots"])
def test_remat_changes_neither_value_nor_gradient(how):
    params, batch = randomised(SMALL), inputs(SMALL)
    again = dataclasses.replace(SMALL, remat=how)

    def value(config, params):
        return jnp.square(forward(config, params, *batch)).mean()

    both = jax.jit(jax.value_and_grad(value, argnums=1), static_argnums=0)
    plain, remat = both(SMALL, params), both(again, params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        plain,
        remat,
    )


def test_a_gradient_computes_again_what_its_remat_says():
    params, (x, *rest) = randomised(SMALL), inputs(SMALL)

    def products(remat):
        config = dataclasses.replace(SMALL, remat=remat)

        def value(params):
            return jnp.square(models.apply(config, params, x, *rest)).sum()

        return str(jax.make_jaxpr(jax.grad(value))(params)).count(" dot_general[")

    none, dots, full = (products(remat) for remat in ("none", "dots", "full"))
    # Those of attention, or also those of five layers, within the scanned block.
    assert dots - none in (0, 2) and full - dots >= 5
    assert (products(False), products(True)) == (none, full)


def test_samples_of_a_batch_do_not_meet():
    params, (x, t, label) = randomised(SMALL), inputs(SMALL, batch=3)
    together = forward(SMALL, params, x, t, label)
    alone = forward(SMALL, params, x[1:2], t[1:2], label[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_of_x_is_kept(dtype):
    config = dataclasses.replace(SMALL, dtype=dtype)
    params, (x, t, label) = randomised(config), inputs(config)
    expected = forward(SMALL, params, x, t, label)
    out = forward(config, params, x.astype(dtype), t, label)
    assert out.dtype == jnp.dtype(dtype)
    tolerance = {"float32": 1e-6, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=tolerance)


def test_learned_variance_doubles_the_channels_and_is_split_off():
    config = dataclasses.replace(SMALL, learn_sigma=True)
    output = forward(config, randomised(config), *inputs(config))
    prediction, variance = models.split_sigma(config, output)
    assert output.shape == (2, 8, 4, 6)
    assert prediction.shape == variance.shape == (2, 8, 4, 3)
    np.testing.assert_array_equal(jnp.concatenate([prediction, variance], -1), output)
    assert models.split_sigma(SMALL, prediction)[1] is None


def test_the_module_itself_gives_what_apply_gives():
    network = models.DiT(SMALL, nnx.Rngs(params=3))
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    batch = inputs(SMALL)
    through_module = nnx.jit(lambda network, *batch: network(*batch))(network, *batch)
    np.testing.assert_allclose(
        through_module, forward(SMALL, params, *batch), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(x=jnp.zeros((2, 3, 8, 4))),
            r"need x \[B, 8, 4, 3\], got x=\[2, 3, 8, 4\]",
        ),
        (dict(t=jnp.zeros(())), r"need t \[2\], got t=\[\]"),
        (dict(label=jnp.zeros(2)), "need integer label, got label=float32"),
        (dict(keep_blocks=jnp.ones(4, bool)), "need integer keep_blocks"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    x, t, label = inputs(SMALL)
    arguments = dict(x=x, t=t, label=label) | change
    with pytest.raises(ValueError, match=message):
        forward(SMALL, randomised(SMALL), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(patch=3), "need image_size divisible by patch=3"),
        (dict(heads=3), "need width a multiple of 4 and of heads=3, got width=32"),
        (dict(depth=0), "need depth >= 1, got depth=0"),
        (dict(remat="some"), "need remat in .*'dots'.*, got remat='some'"),
        (dict(dtype="float64"), "need dtype in"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'XL/2'"):
        models.dit_config("XL2")
