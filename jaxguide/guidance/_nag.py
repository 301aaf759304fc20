"""Normalised attention guidance: a negative condition inside the attention."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._attention import Attention, ChangedAttention
from jaxguide.guidance._base import RAW, Branch, Guided, View
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._layers import Layers, check_layers
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, widen

NORMS = ("l1", "l2")


@dataclasses.dataclass(frozen=True)
class NormalisedAttention(ChangedAttention):
    """Two conditions side by side; the first one's attention moves off the second's."""

    name: str = "nag"
    negative: str = "negative"
    norm: str = "l1"

    own = True

    def beside(self) -> str:
        """The negative condition, the second half of the batch."""
        return self.negative

    def attend(self, run: Attention, q: Array, k: Array, v: Array, here: View) -> Array:
        """Both halves, the first one moved."""
        both = run(q, k, v)
        half = len(both) // 2
        positive, negative = both[:half], both[half:]
        return jnp.concatenate(
            [normalised(positive, negative, here.part, self.norm), negative]
        )


def normalised(
    positive: Array, negative: Array, numbers: "NAG", norm: str = "l1"
) -> Array:
    """The guided attention output, all [B, heads, N, head_dim]; norms are per token.

    z = scale Z+ - (scale - 1) Z-;   R = |z| / |Z+|
    alpha z min(R, tau) / R + (1 - alpha) Z+
    """
    plus, minus = widen(positive), widen(negative)
    scale, tau, alpha = (
        one.number.astype(plus.dtype).reshape(-1, 1, 1, 1)
        for one in (numbers.scale, numbers.tau, numbers.alpha)
    )
    # In this form a scale of 1 gives Z+ exactly.
    far = plus + (scale - 1) * (plus - minus)
    ratio = _length(far, norm) / _length(plus, norm)
    kept = jnp.where(ratio > tau, tau / ratio, jnp.ones_like(ratio))
    return (plus + alpha * (kept * far - plus)).astype(positive.dtype)


def _length(values: Array, norm: str) -> Array:
    """Norm of every token over heads and features, [B, 1, N, 1]; never 0."""
    size = jnp.abs(values) if norm == "l1" else jnp.square(values)
    total = size.sum(axis=(1, 3), keepdims=True)
    total = jnp.maximum(total, jnp.finfo(values.dtype).tiny)
    return total if norm == "l1" else jnp.sqrt(total)


@pytree("scale", "tau", "alpha")
class NAG(Transform):
    """See `nag`."""

    scale: Schedule
    tau: Schedule
    alpha: Schedule
    branch: Branch

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The pair of conditions."""
        del network
        return (self.branch,)

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The scale and alpha."""
        return ((self.scale, 1.0), (self.alpha, 0.0))

    def change(self, guided: Guided, here: View) -> Guided:
        """Puts the prediction of the pair in the place of the raw one."""
        change = here[self.branch] - here[RAW]
        neutral = (self.scale.number == 1.0) | (self.alpha.number == 0.0)
        neutral = neutral.reshape(-1, *(1,) * (change.ndim - 1))
        # Two programs differ in the last bit; neutral is exact, with its gradient.
        rounding = jnp.where(neutral, lax.stop_gradient(change), jnp.zeros_like(change))
        one = jnp.ones((), change.dtype)
        return guided.plus(one, change - rounding)


def nag(
    scale: Weight = 5.0,
    *,
    tau: float | jax.Array | Schedule = 2.5,
    alpha: float | jax.Array | Schedule = 0.25,
    layers: Layers = "all",
    cond: str = "negative",
    norm: str = "l1",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> NAG:
    """Normalised attention guidance (NAG): a negative condition in attention space.

        guided + (nag - raw),   nag: in the chosen blocks Z+ becomes
        alpha z min(R, tau) / R + (1 - alpha) Z+,
        z = scale Z+ - (scale - 1) Z-,   R = |z| / |Z+| per token

    Z+ and Z- are the attention outputs (before the output projection) of two streams
    that run side by side, with the condition and with the negative one; the second
    stays as it is. A scale of 1 or an alpha of 0 is no guidance.

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        tau: largest growth of a token's norm, >= 1; number, array [B] or `Schedule`.
        alpha: share of the moved attention in the result, in [0, 1]; likewise.
        layers: which blocks: an index, "first", "middle", "last", "all", a range "2-5",
            or a tuple of these.
        cond: name of an entry of the sampler's conditions, such as "null".
        norm: "l1" as in the paper, or "l2".
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the condition and a network that takes
        `attention`.

    Raises:
        InputError: for a number out of range, an unknown norm, bad layers or a bad
            window; at the first trace if the network has no such block or does not
            take `attention`.

    NFE: +2 inside the window: the two streams are one forward pass of a double batch.
    Source: Chen et al. 2025, arXiv:2505.21179 (Flux: scale 5, tau 2.5, alpha 0.25);
        read against ChenDarYen/Normalized-Attention-Guidance.
    Differs from the source: there the conditions are text tokens seen through cross or
        joint attention, and one image stream attends to both; a class label enters
        every layer, so there are two streams. One published snapshot for Flux uses the
        L2 norm.
    """
    check_number("nag", "scale", scale)
    check_number("nag", "tau", tau, low=1)
    check_number("nag", "alpha", alpha, low=0, high=1)
    if norm not in NORMS:
        raise InputError(f"nag: need norm in {NORMS}, got norm={norm!r}.")
    layers = check_layers("nag", layers)
    scale = schedules.window(
        scale if layers != () else 1.0, t_lo=t_lo, t_hi=t_hi, outside=1.0
    )
    branch = Branch(change=NormalisedAttention(layers, "nag", cond, norm))
    return NAG(scale, schedules.constant(tau), schedules.constant(alpha), branch)
