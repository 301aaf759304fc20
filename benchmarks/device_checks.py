"""Whether a device computes what it should: attention, its gradient, half precision."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide import models
from jaxguide.models import attention


def run(config: models.DiTConfig) -> dict[str, dict[str, Any]]:
    """Every check: its error, the limit, and whether it holds.

    Errors are root mean squares over that of the reference, which is float32 with full
    products. Fused attention may have twice the error of the dense one.
    """
    found = {}
    for backward in (False, True):
        wide, dense, fused = attention_errors(config, backward)
        what = "gradient of fused attention" if backward else "fused attention"
        found[f"{what}, bfloat16"] = _check(fused, max(2 * dense, 1e-3))
        found[f"{what}, float32"] = _check(wide, 1e-2)
    found["bfloat16 network"] = _check(network_error(config), 5e-2)
    return found


def _check(error: float, limit: float) -> dict[str, Any]:
    # A plain comparison: NaN does not hold.
    return {"error": error, "limit": limit, "holds": bool(error <= limit)}


def attention_errors(
    config: models.DiTConfig, backward: bool
) -> tuple[float, float, float]:
    """Errors of (fused in float32, dense in bfloat16, fused in bfloat16)."""
    tokens, batch = (config.grid[0] * config.grid[1], 4)
    shape = (batch, tokens, config.heads, config.width // config.heads)
    keys = jax.random.split(jax.random.key(0), 4)
    # Logits of standard deviation 3: attention that is neither flat nor a single token.
    scales = (3.0, 1.0, 1.0, 1.0)
    inputs = [
        s * jax.random.normal(k, shape).astype(jnp.bfloat16).astype(jnp.float32)
        for s, k in zip(scales, keys, strict=True)
    ]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def evaluate(function: Any, dtype: str, inputs: list[Array]) -> Any:
        *qkv, weight = (x.astype(dtype) for x in inputs)
        if not backward:
            return function(*qkv)
        out, pull = jax.vjp(function, *qkv)
        return pull(weight.astype(out.dtype))

    fused, dense = attention.fused_attention, attention.dense_attention
    with jax.default_matmul_precision("highest"):
        exact = evaluate(dense, "float32", inputs)
        wide = evaluate(fused, "float32", inputs)
    halves = (evaluate(function, "bfloat16", inputs) for function in (dense, fused))
    return tuple(relative(one, exact) for one in (wide, *halves))  # type: ignore


def network_error(config: models.DiTConfig) -> float:
    """Of one forward pass in bfloat16."""
    wide = dataclasses.replace(config, dtype="float32")
    params = jax.jit(functools.partial(models.init, wide))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # A fresh network returns zeros and hides its blocks: let it say something.
    pairs = zip(leaves, keys, strict=True)
    leaves = [x + 0.02 * jax.random.normal(k, x.shape) for x, k in pairs]
    params = jax.tree.unflatten(tree, leaves)
    x = jax.random.normal(jax.random.key(2), (2, *config.image_shape))
    t, label = jnp.full(2, 0.5), jnp.arange(2, dtype=jnp.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(config: models.DiTConfig, params: Any) -> Array:
        return models.apply(config, params, x, t, label)

    with jax.default_matmul_precision("highest"):
        exact = run(wide, params)
    half = dataclasses.replace(config, dtype="bfloat16")
    return relative(run(half, params), exact)


def relative(found: Any, exact: Any) -> float:
    """Root of the mean square of a difference, over that of `exact`; of all leaves."""

    def total(tree: Any) -> float:
        wide = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
        return float(sum(jnp.square(leaf).sum() for leaf in wide))

    difference = jax.tree.map(lambda a, b: a.astype(jnp.float32) - b, found, exact)
    return (total(difference) / total(exact)) ** 0.5
