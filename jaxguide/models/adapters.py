"""Adapters: small networks beside the blocks of a frozen DiT that know the scale.

    block i:  tokens += attention;  tokens += mlp_i([t, scale, class]);  tokens += mlp

The adapters of a fresh set add zeros, and leaving them out gives the network back.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide.models.blocks import BlockTap, RunBlock
from jaxguide.models.dit import Params, apply, network_time, time_features
from jaxguide.models.dit_config import DiTConfig

_FEATURES = 256  # of the time, and of the scale
_SCALE_UNIT = 1000.0  # before the sines, as for t


def init_adapters(config: DiTConfig, key: Array, *, hidden: int = 256) -> Params:
    """Fresh adapters for every block of a network; they add zeros.

    Args:
        config: architecture of the network.
        key: PRNG key.
        hidden: features inside an adapter.

    Returns:
        A dict of float32 arrays that lead with [depth].
    """
    xavier = jax.nn.initializers.xavier_uniform(batch_axis=(0,))
    first, second = jax.random.split(key)
    inputs = 2 * _FEATURES + config.width
    return {
        "in": xavier(first, (config.depth, inputs, hidden)),
        "in_bias": jnp.zeros((config.depth, hidden)),
        "middle": xavier(second, (config.depth, hidden, hidden)),
        "middle_bias": jnp.zeros((config.depth, hidden)),
        "out": jnp.zeros((config.depth, hidden, config.width)),
        "out_bias": jnp.zeros((config.depth, config.width)),
    }


def adapter_tap(
    config: DiTConfig,
    params: Params,
    adapters: Params,
    t: Array,
    label: Array,
    scale: Array,
) -> BlockTap:
    """The adapters of one batch, for the argument `block` of `apply`.

    Args:
        config, params: the frozen network, whose table of classes the adapters read.
        adapters: made by `init_adapters`.
        t: noise times [B].
        label: int32 [B].
        scale: [B].

    Source: Jensen & Sadat 2025, arXiv:2503.07274, the offset adapters; read against
        cristianpjensen/agd, agd/models/additive.py.
    Differs from the source: what an adapter gives is added behind the gate of the
        attention, not before it; time and scale enter by sines instead of random
        Fourier features and the network's own embedding of time.
    """
    features = jnp.concatenate(
        [
            time_features(network_time(config, t)),
            time_features(scale.astype(jnp.float32) * _SCALE_UNIT),
            params["label_table"].astype(jnp.float32)[label],
        ],
        axis=-1,
    )

    def tap(run: RunBlock, tokens: Array, index: Array) -> Array:
        own = jax.tree.map(lambda leaf: leaf[index], adapters)
        tokens = run(tokens, mlp=False)
        tokens = tokens + _offset(own, features).astype(tokens.dtype)[:, None]
        return run(tokens, attention=False)

    return tap


def _offset(adapter: Params, features: Array) -> Array:
    """What one adapter adds to every token, [B, width]."""
    hidden = jax.nn.silu(features @ adapter["in"] + adapter["in_bias"][None])
    hidden = jax.nn.silu(hidden @ adapter["middle"] + adapter["middle_bias"][None])
    return hidden @ adapter["out"] + adapter["out_bias"][None]


def apply_adapted(
    config: DiTConfig,
    params: Params,
    adapters: Params,
    x: Array,
    t: Array,
    label: Array,
    *,
    scale: Array,
) -> Any:
    """`apply` of a frozen network with its adapters: guided, one forward pass.

    Args:
        config, params, x, t, label: as for `apply`. No gradient flows to `params`.
        adapters: made by `init_adapters`.
        scale: of classifier-free guidance [B].

    Returns:
        [B, H, W, C] as `apply`.
    """
    params = jax.lax.stop_gradient(params)
    tap = adapter_tap(config, params, adapters, t, label, scale)
    return apply(config, params, x, t, label, block=tap)
