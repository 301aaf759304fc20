"""`generate`: seeds, sharding, progress, and the transformations of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxguide as jg
from jaxguide.errors import InputError
from tests import transforms as tf
from tests.contract.common import EXHAUSTIVE

FAST_COMPILE = True
GRID = np.array([0.9, 0.6, 0.3, 0.0])
KEYS = jg.sample_keys(0, jnp.arange(2))
SAMPLERS = {
    "euler": jg.euler(),
    "heun": jg.heun(),
    "dpmpp_2m": jg.dpmpp_2m(),
    "dpmpp_2m_sde": jg.dpmpp_2m_sde(),
    "dpmpp_sde": jg.dpmpp_sde(),
    "res_2s": jg.res_2s(),
    "unipc": jg.unipc(),
    "ddpm": jg.ddpm(),
    "euler_maruyama": jg.euler_maruyama(),
}


def draw(
    indices,
    sampler=None,
    guidance=None,
    network=None,
    place=lambda x: x,
    grid=GRID,
    **options,
):
    """Images number `indices` of one seed."""
    network = tf.toy_probe().known() if network is None else network
    indices = jnp.asarray(indices)
    keys = place(jg.sample_keys(11, indices))
    noise = place(jg.initial_noise(keys, tf.SHAPE))
    label = place((indices % 3).astype(jnp.int32))
    return jg.generate(
        network, noise, label, grid=grid, sample_keys=keys, key=jax.random.key(5),
        sampler=SAMPLERS["ddpm"] if sampler is None else sampler, guidance=guidance,
        conds={"null": jnp.full_like(label, 3)}, **options,
    )  # fmt: skip


GUIDANCE = jg.chain(jg.cfg(2.0), jg.s2(0.3, drop=0.3), jg.sg_prev(0.5, t_hi=1.0))


@pytest.mark.parametrize("name", ["ddpm", "heun"])
def test_an_image_does_not_depend_on_its_batch_or_its_place(name):
    sampler = SAMPLERS[name]
    whole = np.asarray(draw(range(8), sampler, GUIDANCE))
    shuffled = np.asarray(draw([5, 2, 7, 0, 1, 6, 3, 4], sampler, GUIDANCE))
    np.testing.assert_allclose(shuffled[[3, 4, 1]], whole[:3], rtol=1e-5, atol=1e-6)
    alone = np.asarray(draw([2], sampler, GUIDANCE))
    np.testing.assert_allclose(alone[0], whole[2], rtol=1e-5, atol=1e-6)


def test_images_do_not_depend_on_the_number_of_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    one = draw(range(16), guidance=GUIDANCE)
    eight = draw(range(16), guidance=GUIDANCE, place=lambda x: jax.device_put(x, split))
    assert len(eight.sharding.device_set) == 8
    np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-6)


def test_different_seeds_and_indices_give_different_noise():
    keys = jg.sample_keys(0, jnp.arange(5))
    noise = np.asarray(jg.initial_noise(keys, (3,)))
    other = np.asarray(jg.initial_noise(jg.sample_keys(1, jnp.arange(5)), (3,)))
    assert len(np.unique(np.concatenate([noise, other]))) == 30
    typed = jg.initial_noise(jg.sample_keys(jax.random.key(0), jnp.arange(5)), (3,))
    np.testing.assert_array_equal(noise, typed)


def test_the_initial_noise_is_never_drawn_again_by_a_step():
    keys = jg.sample_keys(0, jnp.arange(1))
    begin = np.asarray(jg.initial_noise(keys, (4,)))[0]
    for step in range(50):
        again = jax.random.normal(jax.random.fold_in(keys[0], step), (4,))
        assert np.abs(begin - again).min() > 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.sample_keys(2**32, jnp.arange(2)), "seed=4294967296"),
        (lambda: jg.sample_keys(-1, jnp.arange(2)), "need an integer seed from 0"),
        (lambda: jg.sample_keys(0.5, jnp.arange(2)), "seed=0.5"),
        (lambda: jg.sample_keys(True, jnp.arange(2)), "seed=True"),
        (lambda: jg.sample_keys(0, 3), r"need integer indices \[B\]"),
        (lambda: jg.sample_keys(0, jnp.ones(2)), "indices.shape=.* of float32"),
        (lambda: jg.initial_noise(0, (3,)), "initial_noise: need keys .*got int"),
        (lambda: jg.initial_noise(KEYS, 3), "need shape, sizes .*got shape=3"),
        (lambda: jg.initial_noise(KEYS, (-1,)), r"got shape=\(-1,\)"),
        (lambda: jg.initial_noise(KEYS, (2,), jnp.int8), "need a floating dtype"),
    ],
)
def test_seeds_and_shapes_are_judged(make, match):
    with pytest.raises(InputError, match=match) as error:
        make()
    assert "\n" not in str(error.value)


def test_progress_is_called_once_per_step_with_its_index():
    seen = []
    draw(
        range(2),
        jg.heun(),
        jg.cfg(2.0, t_hi=0.5),
        progress=lambda i: seen.append(int(i)),
    )
    jax.effects_barrier()
    assert sorted(seen) == [0, 1, 2]


# One that draws; the others in the exhaustive run, and in the laws of tests/contract.
TYPICAL = ("ddpm",)
typical_sampler = pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(sampler, id=name, marks=[] if name in TYPICAL else EXHAUSTIVE)
        for name, sampler in SAMPLERS.items()
    ],
)


@pytest.mark.exhaustive
@typical_sampler
def test_samplers_run_under_jit_vmap_and_grad(sampler):
    weights = jnp.asarray([1.3, 0.2])
    grid_of_scales = jnp.asarray([1.5, 3.0])

    def loss(weights, scale):
        network = jg.Network(jax.tree_util.Partial(tf.toy, weights), depth=tf.DEPTH)
        guidance, steps = jg.cfg(scale), GRID[:3]  # the second remembers the first
        return (draw(range(2), sampler, guidance, network, grid=steps) ** 2).sum()

    with jax.disable_jit():
        slope = jax.grad(loss)(weights, 2.0)
        nudge = jnp.asarray([2e-3, 0.0])
        change = (loss(weights + nudge, 2.0) - loss(weights - nudge, 2.0)) / 4e-3
        np.testing.assert_allclose(slope[0], change, rtol=2e-2, atol=2e-2)
        wide = jax.vmap(loss, (None, 0))(weights, grid_of_scales)
        single = loss(weights, 3.0)
    np.testing.assert_allclose(wide[1], single, rtol=1e-5)


def test_generate_may_be_called_under_jit():
    run = jax.jit(lambda scale: draw(range(2), jg.dpmpp_2m(), jg.cfg(scale)))
    plain = draw(range(2), jg.dpmpp_2m(), jg.cfg(2.0))
    np.testing.assert_allclose(run(2.0), plain, rtol=1e-5, atol=1e-6)


@typical_sampler
def test_samplers_keep_bfloat16(sampler):
    def run(noise, keys):
        return jg.generate(
            tf.toy_probe().known(), noise, jnp.zeros(3, jnp.int32), grid=GRID,
            sampler=sampler, sample_keys=keys,
        )  # fmt: skip

    keys = jg.sample_keys(0, jnp.arange(3))
    noise = jg.initial_noise(keys, tf.SHAPE).astype(jnp.bfloat16)
    with jax.disable_jit():
        out = run(noise, keys)
    assert out.dtype == jnp.bfloat16 and bool(jnp.isfinite(out).all())


def test_another_grid_of_the_same_length_does_not_retrace():
    probe = tf.toy_probe()
    keys = jg.sample_keys(0, jnp.arange(2))
    traces = []
    for grid in (GRID, 0.9 * GRID):
        jg.generate(
            probe.network(), jg.initial_noise(keys, tf.SHAPE), jnp.zeros(2, jnp.int32),
            grid=grid, sampler=jg.euler(),
        )  # fmt: skip
        traces.append(probe.traces)
    assert traces[0] == traces[1]


def test_a_schedule_need_not_exist_at_the_end_of_the_grid():
    guidance = jg.cfg(lambda t: 1 + 1 / float(t))  # ZeroDivisionError at t = 0
    with jax.disable_jit():
        out = draw(range(2), jg.euler(), guidance)
    assert bool(jnp.isfinite(out).all())
