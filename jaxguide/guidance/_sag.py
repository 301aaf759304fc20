"""Self-attention guidance: away from a prediction of blurred salient regions."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._base import Branch, Change, View
from jaxguide.guidance._blur import blur
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast, to_columns
from jaxguide.guidance._layers import (
    Layers,
    check_layers,
    check_tap,
    find_layers,
    token_grid,
)
from jaxguide.guidance._network import Network
from jaxguide.paths import Array


@dataclasses.dataclass(frozen=True)
class WatchedAttention(Change):
    """Changes nothing; the network records how much attention each token receives."""

    name: str = "sag"

    def taps(self, here: View) -> dict[str, Any]:
        """`record_attention`; the record is float32 [B, depth, N]."""
        check_tap(self.name, here.called, "record_attention")
        return {"record_attention": True}


@dataclasses.dataclass(frozen=True)
class BlurSalient(Change):
    """The input with its salient regions blurred in the clean image.

    x + alpha(t) mask (blur(denoised) - denoised),   mask: received > threshold
    """

    watched: Branch
    layer: Layers
    sigma: float
    threshold: float

    second = True

    def x(self, here: View) -> Array:
        """The degraded x [B, H, W, ...], with the noise that was predicted."""
        step = here.step
        clean = here.read(self.watched, "denoised")
        if clean.ndim < 3:
            raise InputError(
                f"sag: need images [B, H, W, ...], got x={list(clean.shape)!r}. "
                "Blur is along the second and third axis."
            )
        mask = self._salient(here.record(self.watched), here.network, clean)
        change = jnp.where(mask, blur(clean, self.sigma, (1, 2)) - clean, 0.0)
        return step.x + to_columns(step.node.alpha, step.x) * change.astype(
            step.x.dtype
        )

    def _salient(self, record: Array, network: Network, like: Array) -> Array:
        """Where tokens receive more than the threshold, [B, H, W, 1 ...]."""
        layers = find_layers("sag", self.layer, network)
        received = record[:, jnp.asarray(layers)].mean(axis=1)
        rows, columns = token_grid("sag", network, received.shape[1])
        height, width = like.shape[1:3]
        if height % rows or width % columns:
            raise InputError(
                f"sag: need a grid of tokens that divides the image {(height, width)}, "
                f"got tokens={(rows, columns)!r}. Pass Network(..., tokens=...)."
            )
        salient = (received > self.threshold).reshape(-1, rows, columns)
        salient = salient.repeat(height // rows, 1).repeat(width // columns, 2)
        return salient.reshape(*salient.shape, *(1,) * (like.ndim - 3))


def sag(
    weight: Weight = 0.75,
    *,
    sigma: float = 1.0,
    threshold: float = 1.0,
    layer: Layers = "middle",
    cond: str = "null",
    space: str = "noise",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Self-attention guidance (SAG): away from what the network makes of blurred parts.

        guided + weight(t) * (noise(x) - noise(degraded)),
        degraded = alpha(t) (denoised, blurred where received > threshold)
                   + sigma(t) noise(x)

    Everything is of one condition, by default the null one. The map is the attention
    that each token receives in `layer` (1 on average), over the whole patch of a token.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        sigma: standard deviation of the blur in pixels (or latent cells), static, > 0.
        threshold: received attention above which a token is blurred, static; 0 blurs
            everything.
        layer: the block whose attention is read: an index, "first", "middle", "last";
            several are averaged.
        cond: name of the condition of both predictions: "null", or "cond" where a
            network has no null condition.
        space: in which the difference is taken; "noise" is the paper's.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the condition, images [B, H, W, C] and a
        network that takes `record_attention`.

    Raises:
        InputError: for a number out of range, bad layers, or as `contrast`; at the
            first trace if the network has no such block, does not take
            `record_attention`, or its tokens form no grid that divides the image.

    NFE: +2 inside the window, one behind the other. The prediction whose attention is
        recorded is an evaluation of its own, also beside `cfg`.
    Source: Hong et al. 2022, arXiv:2210.00939; known at second hand only, through
        diffusers' pipeline (weight 0.75, blur 1) and ComfyUI's (0.5, blur 2).
    Differs from the source: the paper reads the mid block of a U-Net. ComfyUI writes
        degraded - denoised(degraded), which is this difference in clean data; taking
        the difference of denoised predictions themselves (`space="denoised"`) also
        adds the blurred-away detail, (x - degraded) / alpha.
    """
    sigma = static_number("sag", "sigma", sigma, above=0)
    threshold = static_number("sag", "threshold", threshold, low=0)
    layer = check_layers("sag", layer)
    if layer == ():
        raise InputError(f"sag: need a layer to read, got layer={layer!r}.")
    watched = Branch(cond=cond, change=WatchedAttention())
    degrade = BlurSalient(watched, layer, sigma, threshold)
    return contrast(
        weight,
        Branch(cond=cond, change=degrade),
        toward=watched,
        space=space,
        t_lo=t_lo,
        t_hi=t_hi,
        name="sag",
    )
