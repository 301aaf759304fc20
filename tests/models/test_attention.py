"""Attention: each kernel against the formula, its derivatives, where it is lowered."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import models
from jaxguide.models import fused
from jaxguide.runtime import devices

FAST_COMPILE = True
FILLED = {"head_multiple": 8}
MODEL = models.DiTConfig(
    image_size=(32, 16), channels=1, patch=1, width=16, depth=2, heads=2, num_classes=3
)


def arrays(*shape, count=3, dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return tuple(jax.random.normal(key, shape, dtype) for key in keys)


def squares(function):
    return lambda *args: jnp.square(function(*args)).sum()


SLOPES = {
    "value": lambda f, args, tangents: f(*args),
    "reverse": lambda f, args, tangents: jax.grad(f, (0, 1, 2))(*args),
    "of values alone": lambda f, args, tangents: jax.grad(f, 2)(*args),
    "forward": lambda f, args, tangents: jax.jvp(f, args, tangents)[1],
    "kept for less": lambda f, args, tangents: jax.grad(jax.checkpoint(f))(*args),
    "forward over reverse": lambda f, args, tangents: jax.jvp(
        jax.grad(f), args, tangents
    ),
    "reverse over forward": lambda f, args, tangents: jax.grad(
        lambda *given: jax.jvp(f, given, tangents)[1]
    )(*args),
    "reverse over reverse": lambda f, args, tangents: jax.grad(squares(jax.grad(f)))(
        *args
    ),
    "of many": lambda f, args, tangents: jax.vmap(
        lambda scale: jax.grad(f)(scale * args[0], *args[1:])
    )(jnp.arange(1.0, 3.0)),
}


@pytest.mark.parametrize("slope", SLOPES)
def test_every_derivative_is_that_of_the_formula(slope):
    args = arrays(2, 5, 2, 4)
    tangents = arrays(2, 5, 2, 4, seed=1)
    ours, formula = (
        SLOPES[slope](squares(function), args, tangents)
        for function in (models.fused_attention, models.dense_attention)
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5),
        ours,
        formula,
    )


@pytest.mark.parametrize("queries,keys", [(300, 300), (256, 140)])
def test_queries_in_blocks_are_the_formula(queries, keys):
    (q,), (k, v) = arrays(1, queries, 2, 8, count=1), arrays(1, keys, 2, 8, count=2)
    blocks = functools.partial(fused.in_blocks, scale=0.3)
    dense = functools.partial(fused.dense, scale=0.3)
    np.testing.assert_allclose(blocks(q, k, v), dense(q, k, v), atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "queries,keys,size,dtype",
    [
        (256, 256, 72, jnp.float32),
        (300, 256, 64, jnp.float32),
        (128, 300, 64, jnp.bfloat16),
    ],
)
def test_the_kernel_of_a_tpu_is_the_formula(queries, keys, size, dtype):
    """By its interpreter, which computes on a CPU what a TPU would."""
    args = (
        *arrays(1, queries, 2, size, count=1, dtype=dtype),
        *arrays(1, keys, 2, size, count=2, dtype=dtype, seed=1),
    )
    wide = [arg.astype(jnp.float32) for arg in args]
    scale = size**-0.5
    kernel = functools.partial(fused.splash, scale=scale, interpret=True)
    dense = functools.partial(fused.dense, scale=scale)
    most = 2e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(
        np.asarray(kernel(*args), np.float32), dense(*wide), atol=most
    )
    ours = jax.grad(squares(kernel), (0, 1, 2))(*args)
    theirs = jax.grad(squares(dense), (0, 1, 2))(*wide)
    for one, other in zip(ours, theirs, strict=True):
        largest = float(jnp.abs(other).max())
        np.testing.assert_allclose(
            np.asarray(one, np.float32), other, atol=most * largest
        )


def program(platform, model, **taps):
    """StableHLO of a forward pass and its gradient, made for a platform."""
    params = jax.eval_shape(functools.partial(models.init, model), jax.random.key(0))
    rows = (
        jax.ShapeDtypeStruct((2, *model.image_shape), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )

    def loss(params, *rows):
        return jnp.square(models.apply(model, params, *rows, **taps)).sum()

    checks = [jax.export.DisabledSafetyCheck.custom_call("tpu_custom_call")]
    exported = jax.export.export(
        jax.jit(jax.grad(loss)), platforms=[platform], disabled_checks=checks
    )
    return exported(params, *rows).mlir_module()


SQUARE = re.compile(r"tensor<[\dx]*512x512xf32>")


@pytest.mark.parametrize("platform,kernel", [("tpu", True), ("cuda", False)])
def test_no_program_for_an_accelerator_holds_all_pairs_of_tokens(platform, kernel):
    """512 tokens; cuDNN's kernel is used where JAX was installed with it."""
    text = program(platform, MODEL)
    assert not SQUARE.search(text)
    assert ("tpu_custom_call" in text) == kernel


def test_a_program_for_a_cpu_or_a_tap_computes_the_formula():
    assert SQUARE.search(program("cpu", MODEL))
    tapped = program("tpu", MODEL, attention=lambda run, q, k, v, index: run(q, k, v))
    assert not SQUARE.search(tapped), "the tap was handed the kernel"


@pytest.fixture(scope="module")
def tiny():
    """A network with random weights: (config, forward pass of other configs)."""
    model = models.DiTConfig(
        image_size=4, channels=1, patch=1, width=12, depth=2, heads=2, num_classes=3
    )
    shapes = jax.eval_shape(functools.partial(models.init, model), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes
    )
    rows = jnp.ones((2, 4, 4, 1)), jnp.full(2, 0.5), jnp.arange(2, dtype=jnp.int32)

    def forward(times=None, keep_blocks=None, **fields):
        other = dataclasses.replace(model, **fields)
        cast = models.cast_params(other, params)
        named = {"keep_blocks": keep_blocks}
        if times:
            labels = jnp.asarray([2, 0, 1])
            named["table"] = models.tabulate(other, cast, jnp.asarray(times), labels)
        return np.asarray(models.apply(other, cast, *rows, **named))

    return forward


@pytest.mark.parametrize("tuned", [{"unroll": True}, FILLED])
def test_how_a_network_runs_changes_no_result(tiny, tuned):
    plain = tiny()
    np.testing.assert_allclose(tiny(**tuned), plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize("times", [(0.25, 0.5), (0.25, 0.75)])
@pytest.mark.parametrize("keep_blocks", [None, jnp.asarray([1])])
def test_a_table_of_modulations_changes_no_result(tiny, times, keep_blocks):
    """Neither where it has the time 0.5, nor where it has not."""
    plain = tiny(keep_blocks=keep_blocks)
    found = tiny(times=times, keep_blocks=keep_blocks)
    np.testing.assert_allclose(found, plain, atol=1e-5 * np.abs(plain).max())


def test_filled_heads_are_as_exact_as_others_in_bfloat16(tiny):
    plain, half, filled = (
        tiny(**fields)
        for fields in ({}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"} | FILLED)
    )
    assert np.abs(filled - plain).max() < 2 * np.abs(half - plain).max()


def test_a_file_keeps_nothing_of_the_device(tmp_path):
    few = itertools.product(("cpu", "gpu", "tpu"), (1, 64))
    tuned = {at: models.tuned(MODEL, at[0], rows=at[1]) for at in few}
    assert tuned["cpu", 1] == tuned["gpu", 64] == MODEL
    assert tuned["gpu", 1].unroll and tuned["tpu", 64].head_multiple == 128
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.eval_shape(functools.partial(models.init, MODEL), jax.random.key(0)),
    )
    made = models.Weights(
        params, tuned["tpu", 1], "linear", "velocity", tuple("abc"), {}
    )
    models.save_weights(tmp_path / "a.safetensors", made)
    read = models.load_weights(tmp_path / "a.safetensors", dtype="bfloat16")
    assert read.model == MODEL
    assert {leaf.dtype for leaf in jax.tree.leaves(read.params)} == {
        jnp.dtype(jnp.bfloat16)
    }


def test_an_old_gpu_has_neither_bfloat16_nor_the_kernel(monkeypatch):
    class Card:
        compute_capability = "7.5"

    half = [jax.ShapeDtypeStruct((1, 256, 2, 64), jnp.bfloat16)] * 3
    monkeypatch.setattr(fused, "_has_cudnn", lambda: True)
    assert fused.for_gpu(*half) is fused.cudnn
    monkeypatch.setattr(jax, "local_devices", lambda: [Card()])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fused.for_gpu(*half) is fused.in_blocks
    assert devices.computing_dtype("sample", "auto") == "float32"
    monkeypatch.setattr(Card, "compute_capability", "9.0")
    assert devices.computing_dtype("sample", "auto") == "bfloat16"
