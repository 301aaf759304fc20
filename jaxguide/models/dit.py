"""DiT/SiT: one diffusion transformer in Flax NNX, used as pure functions.

    tokens = patches(x) + pos_embed;   cond = mlp(features(t)) + table[label]
    block:  tokens += gate · f(LN(tokens) · (1 + scale) + shift),  f = attention, mlp
    prediction = unpatchify(linear(LN(tokens) · (1 + scale) + shift))

Every (shift, scale, gate) is a linear map of silu(cond) that starts at zero, so a
fresh network returns zeros. DiT and SiT are the same network; what the output means
is the business of the path and the training. The model knows nothing of guidance: it
offers two taps (which blocks run, how attention is computed) and ordinary labels, of
which the last, `num_classes`, stands for "no class".

Source: Peebles & Xie 2023, arXiv:2212.09748, Sec. 3; Ma et al. 2024,
    arXiv:2401.08740 (the same blocks).
Differs from the source: attention is heads-first ([B, heads, N, head_dim]), block
    parameters are stacked on a leading axis, an image may be rectangular.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from jaxguide.models.dit_config import DiTConfig

Attention = Callable[[Array, Array, Array, Array], Array]
Params = dict


def softmax_attention(q: Array, k: Array, v: Array, block_index: Array) -> Array:
    """Scaled dot-product attention with a float32 softmax; the default tap.

    Args:
        q, k, v: [B, heads, N, head_dim].
        block_index: int32 [], which block asks; not used here.

    Returns:
        [B, heads, N, head_dim], dtype of `v`.
    """
    del block_index
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v)


def time_features(t: Array, *, shift: float = 0.0, size: int = 256) -> Array:
    """Cosines, then sines, of `t` at geometric frequencies 1 .. 1/10000.

        f_k = 10000^(-k / (size/2 - shift))

    Args:
        t: [B], in whatever unit the checkpoint was trained with.
        shift: 0 in DiT and SiT; 1 in diffusers ("downscale_freq_shift").
        size: number of features, even.

    Returns:
        float32 [B, size].
    """
    half = size // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - shift)
    angle = (
        t.astype(jnp.float32)[:, None] * jnp.exp(-math.log(10000.0) * exponent)[None]
    )
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def position_table(config: DiTConfig) -> np.ndarray:
    """Fixed sine-cosine table: half of the width for the column, half for the row.

    Returns:
        float32 [1, N, width], tokens in row-major order.
    """
    rows, columns = config.grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    quarter = config.width // 4
    frequency = 10000.0 ** -(np.arange(quarter) / quarter)
    angles = [place[:, None] * frequency[None] for place in (column, row)]
    table = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(table, axis=1)[None].astype(np.float32)


def _normalise(tokens: Array, shift: Array, scale: Array) -> Array:
    """LayerNorm without parameters (in float32), then the conditional affine map."""
    wide = tokens.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    unit = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return unit.astype(tokens.dtype) * (1 + scale[:, None]) + shift[:, None]


class _Block(nnx.Module):
    """Attention and MLP, each modulated and gated by the condition."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, hidden = config.width, config.width * config.mlp_ratio
        linear = functools.partial(_linear, rngs=rngs)
        self.heads = config.heads
        self.qkv = linear(width, 3 * width)
        self.out = linear(width, width)
        self.fc1 = linear(width, hidden)
        self.fc2 = linear(hidden, width)
        self.modulation = linear(width, 6 * width, init=nnx.initializers.zeros)

    def __call__(
        self, tokens: Array, cond: Array, index: Array, attention: Attention
    ) -> Array:
        parts = jnp.split(self.modulation(cond), 6, axis=-1)
        shift, scale, gate = parts[:3]
        update = self._attend(_normalise(tokens, shift, scale), index, attention)
        tokens = tokens + gate[:, None] * update
        shift, scale, gate = parts[3:]
        hidden = jax.nn.gelu(self.fc1(_normalise(tokens, shift, scale)))
        return tokens + gate[:, None] * self.fc2(hidden)

    def _attend(self, tokens: Array, index: Array, attention: Attention) -> Array:
        batch, count, width = tokens.shape
        split = (batch, count, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(tokens).reshape(split).transpose(2, 0, 3, 1, 4)
        mixed = attention(q, k, v, index)
        return self.out(mixed.transpose(0, 2, 1, 3).reshape(batch, count, width))


class DiT(nnx.Module):
    """The network as a Flax module; most code uses `init` and `apply` instead.

    Args:
        config: the architecture.
        rngs: stream `params` for the initial weights.
    """

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, patch = config.width, config.patch
        linear = functools.partial(_linear, rngs=rngs)
        zeros, normal = nnx.initializers.zeros, nnx.initializers.normal(0.02)
        self.config = config
        self.patch_in = linear(patch * patch * config.channels, width)
        self.pos_embed = nnx.Param(jnp.asarray(position_table(config)))
        self.time_in = linear(256, width, init=normal)
        self.time_out = linear(width, width, init=normal)
        rows = config.num_classes + 1
        self.label_table = nnx.Param(normal(rngs.params(), (rows, width)))
        stack = nnx.vmap(lambda keys: _Block(config, keys))
        self.blocks = stack(rngs.fork(split=config.depth))
        self.modulation = linear(width, 2 * width, init=zeros)
        outputs = patch * patch * config.out_channels
        self.patch_out = linear(width, outputs, init=zeros)

    def __call__(
        self,
        x: Array,
        t: Array,
        label: Array,
        *,
        keep_blocks: Array | None = None,
        attention: Attention | None = None,
    ) -> Array:
        """See `apply`, which has the same arguments."""
        tokens = self.patch_in(_patchify(x, self.config))
        tokens = tokens + lax.stop_gradient(self.pos_embed[...])
        cond = jax.nn.silu(self._condition(t, label))
        tokens = self._run_blocks(
            tokens, cond, keep_blocks, attention or softmax_attention
        )
        shift, scale = jnp.split(self.modulation(cond), 2, axis=-1)
        return _unpatchify(
            self.patch_out(_normalise(tokens, shift, scale)), self.config
        )

    def _condition(self, t: Array, label: Array) -> Array:
        config, table = self.config, self.label_table[...]
        features = time_features(
            t.astype(jnp.float32) * config.time_scale,
            shift=config.downscale_freq_shift,
        )
        hidden = jax.nn.silu(self.time_in(features.astype(table.dtype)))
        return self.time_out(hidden) + table[label]

    def _run_blocks(
        self, tokens: Array, cond: Array, keep: Array | None, attention: Attention
    ) -> Array:
        graph, stacked = nnx.split(self.blocks)

        def run(tokens: Array, params: nnx.State, index: Array) -> Array:
            return nnx.merge(graph, params)(tokens, cond, index, attention)

        run = jax.checkpoint(run) if self.config.remat else run

        def run_next(tokens: Array, step: tuple[nnx.State, Array]):
            return run(tokens, *step), None

        def run_chosen(tokens: Array, index: Array):
            params = jax.tree.map(
                lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False),
                stacked,
            )
            return run(tokens, params, index), None

        if keep is not None:
            return lax.scan(run_chosen, tokens, keep)[0]
        every = jnp.arange(self.config.depth, dtype=jnp.int32)
        return lax.scan(run_next, tokens, (stacked, every))[0]


def init(config: DiTConfig, key: Array) -> Params:
    """Fresh parameters.

    Args:
        config: the architecture.
        key: PRNG key.

    Returns:
        A nested dict of float32 arrays; block parameters lead with [depth].
    """
    return nnx.to_pure_dict(nnx.state(DiT(config, nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: DiTConfig,
    params: Params,
    x: Array,
    t: Array,
    label: Array,
    *,
    keep_blocks: Array | None = None,
    attention: Attention | None = None,
) -> Array:
    """One forward pass; a pure function that may be jitted, batched, differentiated.

    A dropped block is not computed, and a new choice of the same length compiles
    nothing anew. All samples of the batch share the choice.

    Args:
        config: the architecture; static.
        params: as returned by `init`; cast to `config.dtype` for the computation.
        x: [B, H, W, C].
        t: [B]; the network sees `config.time_scale * t`.
        label: int32 [B], 0 .. num_classes; `num_classes` is "no class".
        keep_blocks: int32 [k], the blocks that run, in this order; None runs all.
        attention: `(q, k, v, block_index) -> out`, all [B, heads, N, head_dim] and
            `block_index` int32 [], traced; None is `softmax_attention`.

    Returns:
        [B, H, W, C] in the dtype of `x`; [B, H, W, 2C] if `config.learn_sigma`.

    Raises:
        ValueError: if a shape or the dtype of `label` or `keep_blocks` is wrong.
    """
    _check(config, x, t, label, keep_blocks)
    dtype = jnp.dtype(config.dtype)
    network = nnx.merge(_graph(config), jax.tree.map(lambda p: p.astype(dtype), params))
    out = network(
        x.astype(dtype), t, label, keep_blocks=keep_blocks, attention=attention
    )
    return out.astype(x.dtype)


def split_sigma(config: DiTConfig, output: Array) -> tuple[Array, Array | None]:
    """Separates what `apply` returned into (prediction, variance).

    Args:
        config: the architecture.
        output: [B, H, W, C] or, with `config.learn_sigma`, [B, H, W, 2C].

    Returns:
        The prediction [B, H, W, C] and the raw variance channels of the same
        shape, or None without `config.learn_sigma`.
    """
    if not config.learn_sigma:
        return output, None
    return output[..., : config.channels], output[..., config.channels :]


def parameter_count(config: DiTConfig) -> int:
    """Number of values in the parameters, the fixed position table included."""
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _linear(
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    init: Callable | None = None,
) -> nnx.Linear:
    init = init or nnx.initializers.xavier_uniform()
    return nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)


@functools.lru_cache(maxsize=32)
def _graph(config: DiTConfig) -> nnx.GraphDef:
    """The static half of the module; built without allocating parameters."""
    network = nnx.eval_shape(lambda: DiT(config, nnx.Rngs(params=0)))
    return nnx.split(network)[0]


def _patchify(x: Array, config: DiTConfig) -> Array:
    """[B, H, W, C] -> [B, N, patch·patch·C], tokens and pixels in row-major order."""
    (rows, columns), patch = config.grid, config.patch
    parts = x.reshape(x.shape[0], rows, patch, columns, patch, config.channels)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], rows * columns, -1)


def _unpatchify(tokens: Array, config: DiTConfig) -> Array:
    """[B, N, patch·patch·C_out] -> [B, H, W, C_out]; channels vary fastest."""
    (rows, columns), patch = config.grid, config.patch
    batch, channels = tokens.shape[0], config.out_channels
    parts = tokens.reshape(batch, rows, columns, patch, patch, channels)
    image = parts.transpose(0, 1, 3, 2, 4, 5)
    return image.reshape(batch, rows * patch, columns * patch, channels)


def _check(
    config: DiTConfig, x: Array, t: Array, label: Array, keep_blocks: Array | None
) -> None:
    batch = x.shape[0] if x.ndim else 0
    want = (batch, *config.image_shape)
    if x.shape != want:
        raise ValueError(
            f"apply: need x [B, {', '.join(map(str, config.image_shape))}], got "
            f"x={list(x.shape)!r}. Channels come last."
        )
    for name, value in (("t", t), ("label", label)):
        if value.shape != (batch,):
            raise ValueError(
                f"apply: need {name} [{batch}], got {name}={list(value.shape)!r}. "
                "Give one value per image (jnp.full)."
            )
    for name, value in (("label", label), ("keep_blocks", keep_blocks)):
        if value is not None and not jnp.issubdtype(value.dtype, jnp.integer):
            raise ValueError(
                f"apply: need integer {name}, got {name}={value.dtype}. "
                "A mask becomes indices by jnp.flatnonzero."
            )
