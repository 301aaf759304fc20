"""Attention as a JAX primitive, so that each device gets a kernel of its own.

JAX chooses how to lower a primitive by the platform that a program is compiled for.
`lax.platform_dependent` would do so too, but traces the kernels of every platform in
every program, and differentiates all of them: forward mode, which the kernels do not
have, would then be lost on a CPU as well.

Three primitives, each linear in what the one before is differentiated by:

    attention(q, k, v) -> o = softmax(scale q k^T) v
    tangent(q, k, v, dq, dk, dv) -> do, the forward derivative; dense on all devices
    cotangent(q, k, v, g) -> (gq, gk, gv), its transpose; a kernel where one exists

All arrays are [B, N, heads, head_dim]; keys and values may have another N than queries.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jaxguide.runtime import devices

LANES = 128  # of a TPU's vector unit; its attention kernel takes multiples of it
# A mesh of the one device that a program without a mesh runs on.
ALONE = AbstractMesh((1,), ("alone",), axis_types=(AxisType.Auto,))
HALF = (jnp.bfloat16, jnp.float16)

Kernel = Callable[..., Array]  # (q, k, v, scale) -> o


def weights(q: Array, k: Array, scale: float) -> Array:
    """softmax(scale q k^T), float32 [B, heads, N, N]; rows are queries."""
    # Heads first: on a CPU the products of matrices that lie together are faster.
    q, k = (part.swapaxes(1, 2) for part in (q, k))
    logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits * scale, axis=-1)


def dense(q: Array, k: Array, v: Array, scale: float) -> Array:
    """Attention by its formula; its derivative by JAX keeps what is N x N."""
    chances = weights(q, k, scale).astype(v.dtype)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", chances, v.swapaxes(1, 2))
    return mixed.swapaxes(1, 2)


def in_blocks(q: Array, k: Array, v: Array, scale: float) -> Array:
    """The same, an eighth of the queries at a time, so that nothing is N x N."""

    @jax.checkpoint  # else the gradient keeps the weights of all blocks
    def one(queries: Array) -> Array:
        return dense(queries, k, v, scale)

    count = min(8, -(-q.shape[1] // LANES))
    parts = jnp.array_split(q, count, axis=1)
    return jnp.concatenate([one(part) for part in parts], axis=1)


def cudnn(q: Array, k: Array, v: Array, scale: float) -> Array:
    """By cuDNN's fused kernel; half precision only."""
    return jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="cudnn")


def splash(
    q: Array, k: Array, v: Array, scale: float, *, interpret: bool = False
) -> Array:
    """By the TPU kernel, with tokens and heads filled up to multiples of 128.

    Filled-up features are zeros, which change no product; filled-up keys are a segment
    of their own, which no query looks at.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
        splash_attention_mask as masks,
    )

    (queries, heads, size), keys = q.shape[1:], k.shape[1]
    q = q * jnp.asarray(scale, q.dtype)
    q, k, v = (_filled(part).swapaxes(1, 2) for part in (q, k, v))
    rows, columns = q.shape[2], k.shape[2]
    mask = masks.MultiHeadMask([masks.FullMask((rows, columns))] * heads)
    tile, wide = _tile(rows), _tile(columns)
    run = kernels.make_splash_mha_single_device(
        mask,
        block_sizes=kernels.BlockSizes(
            *(tile, wide, wide),
            *(tile, wide, wide),
            *(tile, wide),
        ),
        interpret=interpret,
    )
    segments = None
    if columns != keys:
        # Filled-up queries look at tokens too: one that saw none would be NaN.
        seen = (jnp.arange(columns) >= keys).astype(jnp.int32)
        segments = kernels.SegmentIds(jnp.zeros(rows, jnp.int32), seen)
    mixed: Any = jax.vmap(functools.partial(run, segment_ids=segments))(q, k, v)
    return mixed[:, :, :queries, :size].swapaxes(1, 2).astype(v.dtype)


def _filled(part: Array) -> Array:
    """[B, N, heads, head_dim] with zeros up to multiples of 128 tokens and features."""
    tokens, size = part.shape[1], part.shape[3]
    return jnp.pad(part, ((0, 0), (0, -tokens % LANES), (0, 0), (0, -size % LANES)))


def _tile(tokens: int) -> int:
    """The largest block of at most 512 tokens that divides them."""
    return next(size for size in (512, 384, 256, LANES) if tokens % size == 0)


def for_gpu(q: Array, k: Array, v: Array) -> Kernel:
    """What computes arrays of this kind on an NVIDIA GPU."""
    # As cuDNN asks; 128 features hold on every card that has the kernel.
    fits = q.shape[3] % 8 == 0 and q.shape[3] <= 128 and q.dtype in HALF
    if fits and _has_cudnn() and devices.is_modern_gpu():
        return cudnn
    return in_blocks if k.shape[1] > LANES else dense


def for_tpu(q: Array, k: Array, v: Array) -> Kernel:
    """What computes arrays of this kind on a TPU."""
    # Below that the matrix of logits is one tile of the unit that makes it.
    return splash if k.shape[1] >= LANES else dense


@functools.cache
def _has_cudnn() -> bool:
    """Whether this JAX was installed with what compiles cuDNN's kernel."""
    shape = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(functools.partial(cudnn, scale=1.0), shape, shape, shape)
    except RuntimeError:
        return False
    return True


attention_p = Primitive("attention")
tangent_p = Primitive("attention_tangent")
cotangent_p = Primitive("attention_cotangent")
cotangent_p.multiple_results = True


def attention(q: Array, k: Array, v: Array, scale: float) -> Array:
    """The primitive: see the module; `scale` is static."""
    # The mesh as the caller set it: unknown where the program is lowered.
    return attention_p.bind(q, k, v, scale=scale, mesh=jax.sharding.get_abstract_mesh())


def _tangent(*args: Array, scale: float) -> Array:
    return jax.jvp(functools.partial(dense, scale=scale), args[:3], args[3:])[1]


def _cotangent(kernel: Kernel, *args: Array, scale: float) -> list[Array]:
    q, k, v, g = args
    return list(jax.vjp(functools.partial(kernel, scale=scale), q, k, v)[1](g))


def _attention_jvp(primals: Any, tangents: Any, **named: Any) -> tuple[Array, Array]:
    filled = map(ad.instantiate_zeros, tangents)
    slope = tangent_p.bind(*primals, *filled, **named)
    return attention_p.bind(*primals, **named), slope


def _tangent_transpose(
    g: Any, q: Array, k: Array, v: Array, *linear: Any, **named: Any
) -> list[Any]:
    found = cotangent_p.bind(q, k, v, ad.instantiate_zeros(g), **named)
    wanted = [
        one if ad.is_undefined_primal(arg) else None
        for one, arg in zip(found, linear, strict=True)
    ]
    return [None, None, None, *wanted]


def _dense_jvp(function: Callable) -> Callable:
    """The derivative of a derivative: that of the formula, on every device."""

    def rule(primals: Any, tangents: Any, *, scale: float, mesh: Any) -> Any:
        del mesh
        filled = tuple(map(ad.instantiate_zeros, tangents))
        return jax.jvp(functools.partial(function, scale=scale), primals, filled)

    return rule


def _batched(primitive: Primitive) -> Callable:
    """The mapped axis joins the batch: all arguments get it, and are one batch."""

    def rule(args: Any, axes: Any, **named: Any) -> Any:
        size = next(
            arg.shape[axis]
            for arg, axis in zip(args, axes, strict=True)
            if axis is not None
        )
        moved = [
            jnp.broadcast_to(arg, (size, *arg.shape))
            if axis is None
            else jnp.moveaxis(arg, axis, 0)
            for arg, axis in zip(args, axes, strict=True)
        ]
        flat = [arg.reshape(-1, *arg.shape[2:]) for arg in moved]
        out = primitive.bind(*flat, **named)
        apart = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), out)
        return apart, jax.tree.map(lambda _: 0, apart)

    return rule


def _split(function: Callable, mesh: Any, batch: int) -> Callable:
    """The function on the rows of the batch that each device of the mesh holds."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    names = tuple(name for name, kind in kinds if kind == AxisType.Auto)
    if not names:
        return function  # the caller has split the batch already
    devices = math.prod(mesh.shape[name] for name in names)
    rows = PartitionSpec(names if batch % devices == 0 else None)
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=rows,
        out_specs=rows,
        axis_names=set(names),
        check_vma=False,
    )


def _lowering(choose: Callable[..., Kernel], backward: bool) -> Callable:
    """A rule that lowers to the kernel of a device; traced where it is used."""

    def rule(context: Any, *args: Any, scale: float, mesh: Any) -> Any:
        q, k, v = context.avals_in[:3]
        kernel = choose(q, k, v)
        if kernel in (cudnn, splash) and mesh.empty:
            # XLA cannot split a hand-written kernel over devices by itself, and says
            # nothing about which rows they hold. One device needs no splitting.
            one = getattr(context.module_context.axis_context, "num_devices", 1) == 1
            mesh, kernel = (ALONE, kernel) if one else (mesh, in_blocks)
        function = functools.partial(_cotangent, kernel) if backward else kernel
        function = functools.partial(function, scale=scale)
        if kernel in (cudnn, splash):
            function = _split(function, mesh, q.shape[0])
        lower = mlir.lower_fun(function, multiple_results=backward)
        return lower(context, *args)

    return rule


def _eager(primitive: Primitive, formula: Callable) -> Callable:
    """What runs outside of `jit`."""
    compiled = jax.jit(primitive.bind, static_argnames=("scale", "mesh"))

    def run(*args: Any, scale: float, mesh: Any) -> Any:
        # Where `jit` is disabled it would call this function again.
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return formula(*args, scale=scale)
        return compiled(*args, scale=scale, mesh=mesh)

    return run


def _lower_tangent(context: Any, *args: Any, scale: float, mesh: Any) -> Any:
    del mesh
    function = functools.partial(_tangent, scale=scale)
    return mlir.lower_fun(function, multiple_results=False)(context, *args)


def _register() -> None:
    """Rules of the three primitives."""
    attention_p.def_abstract_eval(lambda q, k, v, **_: q.update(dtype=v.dtype))
    tangent_p.def_abstract_eval(lambda q, k, v, *_, **__: q.update(dtype=v.dtype))
    cotangent_p.def_abstract_eval(lambda q, k, v, g, **_: [q, k, v])
    formulas = {
        attention_p: dense,
        tangent_p: _tangent,
        cotangent_p: functools.partial(_cotangent, dense),
    }
    for primitive, formula in formulas.items():
        primitive.def_impl(_eager(primitive, formula))
        batching.primitive_batchers[primitive] = _batched(primitive)
    ad.primitive_jvps[attention_p] = _attention_jvp
    for primitive in (tangent_p, cotangent_p):
        ad.primitive_jvps[primitive] = _dense_jvp(formulas[primitive])
    ad.primitive_transposes[tangent_p] = _tangent_transpose
    mlir.register_lowering(tangent_p, _lower_tangent)
    for platform, choose in (
        (None, lambda *_: dense),
        ("cuda", for_gpu),
        ("tpu", for_tpu),
    ):
        for primitive, backward in ((attention_p, False), (cotangent_p, True)):
            rule = _lowering(choose, backward)
            mlir.register_lowering(primitive, rule, platform=platform)


_register()
