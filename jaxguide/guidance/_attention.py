"""Guidance away from a network whose self-attention is disturbed: PAG and SEG."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxguide.guidance._base import RAW, Branch, Change, View
from jaxguide.guidance._blur import blur
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._layers import (
    Layers,
    check_batch_axis,
    check_layers,
    check_tap,
    find_layers,
    token_grid,
    where_chosen,
)
from jaxguide.paths import Array

# (q, k, v) -> out, all [B, heads, N, head_dim]
Attention = Callable[[Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class ChangedAttention(Change):
    """Another attention in chosen blocks; the usual one is not computed there."""

    layers: Layers
    name: str = "attention"

    def taps(self, here: View) -> dict[str, Any]:
        """`attention`, a function `(run, q, k, v, block_index) -> out`."""
        check_tap(self.name, here.called, "attention")
        layers = find_layers(self.name, self.layers, here.called)

        def attention(
            run: Attention, q: Array, k: Array, v: Array, block_index: Array
        ) -> Array:
            check_batch_axis(self.name, "queries", q, "[B, heads, N, head_dim]")

            def changed(q: Array, k: Array, v: Array) -> Array:
                return self.attend(run, q, k, v, here)

            return where_chosen(layers, here.called, block_index, changed, run, q, k, v)

        return {"attention": attention}

    def attend(self, run: Attention, q: Array, k: Array, v: Array, here: View) -> Array:
        """The attention of a chosen block, all [B, heads, N, head_dim]; `run(q, k, v)`
        is the network's own."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class IdentityAttention(ChangedAttention):
    """Every token attends to itself alone: the values are the output."""

    name: str = "pag"

    def attend(self, run: Attention, q: Array, k: Array, v: Array, here: View) -> Array:
        """The values."""
        del run, q, k, here
        return v


@dataclasses.dataclass(frozen=True)
class BlurredQueries(ChangedAttention):
    """Attention with queries blurred over the grid of tokens."""

    name: str = "seg"
    sigma: float = math.inf

    def attend(self, run: Attention, q: Array, k: Array, v: Array, here: View) -> Array:
        """Attention of the smoothed queries."""
        rows, columns = token_grid(self.name, here.called, q.shape[2])
        grid = q.reshape(*q.shape[:2], rows, columns, q.shape[3])
        return run(blur(grid, self.sigma, (2, 3)).reshape(q.shape), k, v)


def pag(
    weight: Weight = 3.0,
    *,
    layers: Layers = "middle",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Perturbed-attention guidance (PAG): away from attention to oneself alone.

        guided + weight(t) * (raw - identity),   identity: softmax(q k^T) becomes I

    In the chosen blocks every token keeps its own value; no softmax is computed there.
    The adaptive scale of the first implementations is a function of noise time,
    `weight=lambda t: jnp.maximum(0.0, 3.0 - 4.0 * (1 - t))`; 4 is their 0.004 of 1000.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        layers: which blocks: an index, "first", "middle", "last", "all", a range "2-5",
            or a tuple of these.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a network that takes `attention`.

    Raises:
        InputError: for bad layers, or as `contrast`; at the first trace if the network
            has no such block or does not take `attention`.

    NFE: +1 inside the window, counted as a full evaluation (the attention saved is not
        subtracted from the FLOPs).
    Source: Ahn et al. 2024, arXiv:2403.17377; weight 3, middle block; read
        against cvlab-kaist/Perturbed-Attention-Guidance @ba1c0c9.
    Differs from the source: the paper perturbs the U-Net's mid block. The authors'
        guided-diffusion script writes identity + g (raw - identity), so g is
        1 + weight. diffusers agrees beside CFG only: without it, its guider evaluates
        the null condition instead of the perturbed network.

    >>> pag(3.0, layers=(0, "middle")).live(0.5)
    True
    """
    layers = check_layers("pag", layers)
    away = Branch(change=IdentityAttention(layers)) if layers != () else RAW
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, name="pag")


def seg(
    weight: Weight = 3.0,
    *,
    layers: Layers = "middle",
    sigma: float = math.inf,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Smoothed energy guidance (SEG): away from attention with blurred queries.

        guided + weight(t) * (raw - blurred),   blurred: q becomes Gaussian_sigma * q

    The queries of the chosen blocks are blurred on the two-dimensional grid of tokens;
    `sigma = inf` gives every token the mean query. The grid is `Network.tokens`, or a
    square where the network does not say.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        layers: which blocks: an index, "first", "middle", "last", "all", a range "2-5",
            or a tuple of these.
        sigma: standard deviation of the blur in tokens, static, >= 0 or inf.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a network that takes `attention`.

    Raises:
        InputError: if `sigma` is negative or not a number, for bad layers, or as
            `contrast`; at the first trace if the network has no such block, does not
            take `attention`, or its tokens form no known grid.

    NFE: +1 inside the window.
    Source: Hong 2024, arXiv:2408.00760; weight 3, sigma inf (the paper also shows 10);
        the kernel (odd, ceil(6 sigma), capped at the grid, reflected border) as read in
        SusungHong/SEG-SDXL @cf8256d.
    Differs from the source: sigma above 9999 is the mean there, only inf is here.
        diffusers (0.35 and later) has the two blurs exchanged, and its guider never
        applies either; it is no reference.
    """
    layers = check_layers("seg", layers)
    sigma = static_number("seg", "sigma", sigma, low=0, infinite=True)
    tap = BlurredQueries(layers, sigma=sigma)
    away = Branch(change=tap) if layers != () and sigma > 0 else RAW
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, name="seg")
