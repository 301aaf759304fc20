"""Every prediction as every other; equations are those of `jaxguide.paths`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths._coefficients import ArrayLike, Node

Array = jax.Array  # shapes stand in the docstrings

KINDS = ("velocity", "denoised", "noise", "score")
# Of alpha or sigma, below which nothing is left: alpha of GVP at t = 1 is 6e-17.
NOTHING = 1e-8


def expand(value: ArrayLike, x: Array) -> Array:
    """`value` [] or [B] in the dtype of `x` [B, *D], shaped to broadcast against it."""
    value = jnp.asarray(value).astype(x.dtype)
    return value.reshape(value.shape + (1,) * (x.ndim - value.ndim))


def widen(value: Array) -> Array:
    """`value` in float32 if its own dtype is narrower."""
    narrow = jnp.finfo(value.dtype).bits < 32
    return value.astype(jnp.float32) if narrow else value


def corrupt(x0: Array, noise: Array, node: Node) -> Array:
    """The noisy state `x_t` [B, *D] of Eq. (1)."""
    return expand(node.alpha, x0) * x0 + expand(node.sigma, x0) * noise


def target(kind: str, x0: Array, noise: Array, node: Node) -> Array:
    """What a network of this `kind` regresses on, [B, *D]; Eqs. (2) to (5)."""
    check_kind("target", kind)
    if kind == "velocity":
        return expand(node.dalpha, x0) * x0 + expand(node.dsigma, x0) * noise
    if kind == "denoised":
        return x0
    return noise if kind == "noise" else -noise / expand(node.sigma, x0)


def to_pair(kind: str, prediction: Array, x: Array, node: Node) -> tuple[Array, Array]:
    """(denoised, noise), both [B, *D], of a prediction made at `(x, node)`."""
    check_kind("to_pair", kind)
    alpha, sigma, dalpha, dsigma = (expand(c, x) for c in node[1:])
    prediction = prediction.astype(x.dtype)
    if kind == "velocity":
        wronskian = alpha * dsigma - sigma * dalpha
        denoised = (dsigma * x - sigma * prediction) / wronskian
        return denoised, (alpha * prediction - dalpha * x) / wronskian
    if kind == "denoised":
        return prediction, (x - alpha * prediction) / sigma
    noise = prediction if kind == "noise" else -sigma * prediction
    return (x - sigma * noise) / alpha, noise


def from_pair(kind: str, denoised: Array, noise: Array, node: Node) -> Array:
    """The prediction of this `kind` that holds the pair (denoised, noise)."""
    return target(kind, denoised, noise, node)


def convert(prediction: Array, x: Array, node: Node, source: str, to: str) -> Array:
    """A `source` prediction at `(x, node)` as kind `to`; [B, *D], dtype kept."""
    check_kind("convert", to)
    if source == to:
        return prediction
    converted = from_pair(to, *to_pair(source, prediction, x, node), node)
    return converted.astype(prediction.dtype)


def undetermined(kind: str, node: Node) -> tuple[Any, Any]:
    """Where a prediction of `kind` gives no data, and where it gives no noise.

    The denominators of Eqs. (4) and (6) are 0 or infinite there in float32. A velocity
    gives no noise where sigma' is infinite: at t = 0 of `VP` and `DDPM`.

    Args:
        kind: one of `KINDS`.
        node: of noise times [N], float64 on the host.

    Returns:
        Two bool arrays [N].
    """
    no_data, no_noise = np.abs(node.alpha) < NOTHING, np.abs(node.sigma) < NOTHING
    never = np.zeros_like(no_data)
    if kind == "velocity":
        with np.errstate(all="ignore"):
            size = np.abs(node.alpha * node.dsigma - node.sigma * node.dalpha)
        single = np.finfo(np.float32)
        return size < single.tiny, ~(size <= single.max)
    return (never, no_noise) if kind == "denoised" else (no_data, never)


def difference_factor(node: Node, source: str, to: str) -> Any:
    """The number that turns a difference of `source` predictions into one of `to`.

    Holds for two predictions at the same `(x, t)`, where the parts in `x` cancel.
    """
    return _per_velocity(node, to) / _per_velocity(node, source)


def _per_velocity(node: Node, kind: str) -> Any:
    """d prediction / d velocity at fixed `(x, t)`, [] or [B]."""
    check_kind("difference_factor", kind)
    wronskian = node.alpha * node.dsigma - node.sigma * node.dalpha
    if kind == "velocity":
        return wronskian / wronskian
    if kind == "denoised":
        return -node.sigma / wronskian
    noise = node.alpha / wronskian
    return noise if kind == "noise" else -noise / node.sigma


def check_kind(name: str, kind: str) -> None:
    """Raises InputError unless `kind` is one of `KINDS`."""
    if kind not in KINDS:
        raise InputError(f"{name}: need kind in {KINDS}, got kind={kind!r}.")
