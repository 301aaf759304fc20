"""DiT/SiT: one diffusion transformer in Flax NNX, used as pure functions.

    tokens = patches(x) + pos_embed;   cond = mlp(features(t)) + table[label]
    block:  tokens += gate · f(LN(tokens) · (1 + scale) + shift),  f = attention, mlp
    prediction = unpatchify(linear(LN(tokens) · (1 + scale) + shift))

Every (shift, scale, gate) is a linear map of silu(cond) that starts at zero, so a
fresh network returns zeros. DiT and SiT are the same network; what the output means
depends on the path and the training. The model has no part in guidance: it offers taps
(which blocks run, how attention is computed, what happens around a block, the time
embedding, a record of attention), each free where it is not used, and ordinary labels,
of which the last, `num_classes`, stands for "no class".

Source: Peebles & Xie 2023, arXiv:2212.09748, Sec. 3; Ma et al. 2024,
    arXiv:2401.08740 (the same blocks).
Differs from the source: attention is heads-first ([B, heads, N, head_dim]), block
    parameters are stacked on a leading axis, an image may be rectangular.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from jaxguide.errors import InputError
from jaxguide.models.blocks import (
    AttentionTap,
    Block,
    BlockTap,
    Taps,
    fetched,
    make_linear,
    normalise,
    run_blocks,
)
from jaxguide.models.dit_config import INPUT_UNITS, DiTConfig
from jaxguide.models.modulations import ModulationTable, looked_up

Params = dict


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


def network_time(config: DiTConfig, t: Array) -> Array:
    """What the network is fed for noise time `t`: `time_scale * t + time_offset`.

    A result that is a whole number but for float32's rounding of `t` becomes that
    number (the timesteps of DiT's table; 23 of its 1000 would be off by 3e-5, and the
    output of a random DiT-S by 5e-5). The derivative is `time_scale` everywhere.

    Args:
        config: the architecture.
        t: [B].

    Returns:
        float32 [B].
    """
    time = t.astype(jnp.float32) * config.time_scale + config.time_offset
    error = jnp.round(time) - time
    # At least the rounding of a t up to 1, in units of the network's time.
    rounding = abs(config.time_scale) * 2.0**-23
    return time + lax.stop_gradient(jnp.where(jnp.abs(error) <= rounding, error, 0.0))


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


class DiT(nnx.Module):
    """The network as a Flax module; most code uses `init` and `apply` instead.

    Args:
        config: the architecture.
        rngs: stream `params` for the initial weights.
    """

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, patch = config.width, config.patch
        linear = functools.partial(make_linear, rngs=rngs)
        zeros, normal = nnx.initializers.zeros, nnx.initializers.normal(0.02)
        self.config = config
        self.patch_in = linear(patch * patch * config.channels, width)
        self.pos_embed = nnx.Param(jnp.asarray(position_table(config)))
        self.time_in = linear(256, width, init=normal)
        self.time_out = linear(width, width, init=normal)
        # Nearly 0, so that a fresh network behaves as one without these inputs.
        near_zero = nnx.initializers.normal(0.0002)
        for name in config.inputs:
            setattr(self, f"{name}_in", linear(256, width, init=normal))
            setattr(self, f"{name}_out", linear(width, width, init=near_zero))
        rows = config.num_classes + 1
        self.label_table = nnx.Param(normal(rngs.params(), (rows, width)))
        # `vmap` over the keys gives one Block whose parameters have a leading axis.
        stack = nnx.vmap(lambda keys: Block(config, keys))
        self.blocks = stack(rngs.fork(split=config.depth))
        self.modulation = linear(width, 2 * width, init=zeros)
        outputs = patch * patch * config.out_channels
        self.patch_out = linear(width, outputs, init=zeros)

    def __call__(
        self,
        x: Array,
        t: Array,
        label: Array,
        numbers: Mapping[str, Array] | None = None,
        taps: Taps = Taps(),  # noqa: B008
        table: ModulationTable | None = None,
    ) -> Any:
        """See `apply`, whose keyword arguments `taps` holds."""
        tokens = self.patch_in(_patchify(x, self.config))
        # Stored with the parameters and never trained: it gets no gradient.
        tokens = tokens + lax.stop_gradient(self.pos_embed[...])
        cond = self._condition(t, label, taps.time_embedding)
        for name in self.config.inputs:
            cond = cond + self._number(name, (numbers or {})[name])
        cond = jax.nn.silu(cond)
        blocks, ends = None, None
        if table is not None and taps.time_embedding is None:
            known = functools.partial(self.modulations, cond)
            blocks, ends = looked_up(table, t, label, known)
        tokens, record = run_blocks(
            self.blocks, tokens, cond, taps, self.config, blocks
        )
        ends = self.modulation(cond) if ends is None else ends
        shift, scale = jnp.split(ends, 2, axis=-1)
        out = self.patch_out(normalise(tokens, shift, scale))
        out = _unpatchify(out, self.config)
        return (out, record) if taps.record else out

    def modulations(self, cond: Array) -> tuple[Array, Array]:
        """Of all blocks [depth, B, 6 width], and of the end [B, 2 width]."""
        linear = self.blocks.modulation
        blocks = jnp.einsum("bw,dwk->dbk", cond, linear.kernel[...])
        return blocks + jnp.asarray(linear.bias)[:, None], self.modulation(cond)

    def tabulate(self, times: Array, labels: Array) -> ModulationTable:
        """See `tabulate`."""
        t, label = (part.ravel() for part in jnp.meshgrid(times, labels, indexing="ij"))
        cond = jax.nn.silu(self._condition(t, label, None))
        blocks, ends = self.modulations(cond)
        return ModulationTable(times, labels, blocks, ends)

    def _condition(self, t: Array, label: Array, tap: Callable | None) -> Array:
        config, table = self.config, self.label_table[...]
        features = time_features(
            network_time(config, t), shift=config.downscale_freq_shift
        )
        hidden = jax.nn.silu(self.time_in(features.astype(table.dtype)))
        embedding = self.time_out(hidden)
        embedding = embedding if tap is None else tap(embedding)
        return embedding + table[label]

    def _number(self, name: str, value: Array) -> Array:
        """The embedding [B, width] of one number per image."""
        features = time_features(value.astype(jnp.float32) * INPUT_UNITS[name])
        features = features.astype(self.label_table[...].dtype)
        hidden = jax.nn.silu(getattr(self, f"{name}_in")(features))
        return getattr(self, f"{name}_out")(hidden)


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
    attention: AttentionTap | None = None,
    block: BlockTap | None = None,
    time_embedding: Callable[[Array], Array] | None = None,
    numbers: Mapping[str, Array] | None = None,
    record_attention: bool = False,
    table: ModulationTable | None = None,
) -> Any:
    """One forward pass; a pure function that may be jitted, batched, differentiated.

    A dropped block is not computed, and a new choice of the same length compiles
    nothing anew. All samples of the batch share the choice.

    Args:
        config: the architecture; static.
        params: as returned by `init`; cast to `config.dtype` for the computation.
        x: [B, H, W, C].
        t: [B]; the network sees `config.time_scale * t + config.time_offset`.
        label: int32 [B], 0 .. num_classes; `num_classes` is "no class".
        keep_blocks: int32 [k], the blocks that run, in this order; None runs all.
        attention: `(run, q, k, v, block_index) -> out`, arrays [B, heads, N, head_dim]
            and `block_index` int32 [], traced; `run(q, k, v) -> out` is the network's
            own attention. None runs it everywhere.
        block: `(run, tokens, block_index) -> tokens`, tokens [B, N, width], where
            `run(tokens, attention=True, mlp=True)` is the block, or a part of it.
        time_embedding: `embedding -> embedding`, [B, width], before the label is added.
        numbers: one float [B] for every name in `config.inputs`.
        record_attention: also return how much attention every token receives.
        table: of `tabulate`, for the same parameters; other times and labels than its
            own are computed.

    Returns:
        [B, H, W, C] in the dtype of `x`; [B, H, W, 2C] if `config.learn_sigma`. With
        `record_attention` a pair of it and float32 [B, blocks, N], summed over queries
        and averaged over heads: 1 on average over the tokens.

    Raises:
        InputError: if a shape or the dtype of `label` or `keep_blocks` is wrong, if
            `numbers` are not those of `config.inputs`, or if `block` and
            `record_attention` are both asked for.
    """
    _check(config, x, t, label, keep_blocks)
    if set(numbers or {}) != set(config.inputs):
        raise InputError(
            f"apply: need numbers for {config.inputs!r}, got "
            f"numbers={sorted(numbers or {})!r}. Pass one array [B] for each name."
        )
    if block is not None and record_attention:
        raise InputError(
            f"apply: need block or record_attention, got both, block={block!r}. "
            "A block tap may run a block twice or not at all."
        )
    params = cast_params(config, params)
    # The blocks are fetched one by one in their scan: in full they need not fit.
    ends = fetched({name: params[name] for name in params if name != "blocks"})
    network = nnx.merge(_graph(config), {**params, **ends})
    taps = Taps(keep_blocks, attention, block, time_embedding, record_attention)
    out = network(x.astype(config.dtype), t, label, numbers, taps, table)
    if record_attention:
        out, record = out
        return out.astype(x.dtype), record
    return out.astype(x.dtype)


def tabulate(
    config: DiTConfig, params: Params, times: Array, labels: Array
) -> ModulationTable:
    """Modulations of all blocks at known times and labels, computed once.

    With few images per call a third of the weights are read for these alone, at every
    step. In a sampler their times are known before it begins.

    Args:
        config: the architecture, without `inputs`.
        params: as `apply` takes them.
        times: float [M], noise times.
        labels: int32 [L].

    Returns:
        Of depth x M x L x 6 width values, to be given to `apply` as `table`.

    Raises:
        InputError: if the network takes numbers beside the time.
    """
    if config.inputs:
        raise InputError(
            f"tabulate: need a network without inputs, got inputs={config.inputs!r}. "
            "Call apply without a table."
        )
    network = nnx.merge(_graph(config), cast_params(config, params))
    return network.tabulate(times, labels)


def cast_params(config: DiTConfig, params: Params) -> Params:
    """Parameters in the dtype of the computation, as `apply` casts them.

    Cast them before a loop over many steps: a GPU does it at every step otherwise.
    `load_weights(dtype=)` reads them so.

    Args:
        config: the architecture.
        params: as returned by `init`.

    Returns:
        The same tree, every leaf in `config.dtype`.
    """
    return jax.tree.map(lambda leaf: leaf.astype(config.dtype), params)


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
        raise InputError(
            f"apply: need x [B, {', '.join(map(str, config.image_shape))}], got "
            f"x={list(x.shape)!r}. Channels come last."
        )
    for name, value in (("t", t), ("label", label)):
        if value.shape != (batch,):
            raise InputError(
                f"apply: need {name} [{batch}], got {name}={list(value.shape)!r}. "
                "Give one value per image (jnp.full)."
            )
    for name, value in (("label", label), ("keep_blocks", keep_blocks)):
        if value is not None and not jnp.issubdtype(value.dtype, jnp.integer):
            raise InputError(
                f"apply: need integer {name}, got {name}={value.dtype}. "
                "A mask becomes indices by jnp.flatnonzero."
            )
