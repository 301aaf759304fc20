"""The guided sampler lowers for TPU and GPU, branches separate and batched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import models
from jaxguide.guidance import Network

FAST_COMPILE = True
MODEL = models.DiTConfig(
    image_size=8, channels=2, patch=2, width=32, depth=4, heads=2, num_classes=3
)
CHAIN = jg.chain(
    jg.cfg(2.0, t_lo=0.2, t_hi=0.9),
    jg.sg_prev(1.0, t_hi=1.0),
    jg.sg(0.5, shift=0.1),
    jg.s2(0.5, drop=0.3),
)
GRID = jg.uniform(4)


@functools.cache
def params():
    """Random numbers everywhere: a fresh DiT returns zeros."""
    shapes = jax.eval_shape(functools.partial(models.init, MODEL), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.15 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes
    )


def sampler(dtype, batched):
    """(params, noise, labels, key) -> images, with the network computing in dtype."""
    model = models.DiTConfig(**{**vars(MODEL), "dtype": dtype})
    forward = functools.partial(models.apply, model)

    def sample(params, noise, labels, key):
        network = Network(jax.tree_util.Partial(forward, params), depth=MODEL.depth)
        return jg.generate(
            network,
            noise,
            labels,
            grid=GRID,
            sampler=jg.euler(),
            guidance=CHAIN,
            conds={"null": jnp.full_like(labels, MODEL.null_label)},
            key=key,
            batched=batched,
        )

    return jax.jit(sample)


def inputs(dtype):
    noise = np.random.default_rng(1).standard_normal((4, *MODEL.image_shape))
    labels = jnp.array([0, 1, 2, 0], jnp.int32)
    return params(), jnp.asarray(noise, dtype), labels, jax.random.key(0)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lowers_for_tpu_and_cuda(dtype, batched):
    shapes = jax.eval_shape(lambda: inputs(dtype))
    with jax.numpy_dtype_promotion("standard"):
        exported = jax.export.export(
            sampler(dtype, batched), platforms=["tpu", "cuda"]
        )(*shapes)
    assert exported.platforms == ("tpu", "cuda")
    (out,) = exported.out_avals
    assert out.shape == (4, *MODEL.image_shape) and out.dtype == dtype
    assert "while" in exported.mlir_module()
