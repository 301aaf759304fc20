"""Stable Diffusion's autoencoder in Flax NNX, used as pure functions.

    encode: images -> conv -> stages of residual blocks, each but the last ends with a
            halving convolution -> residual, attention, residual -> norm, conv
            -> means and log variances of the latents
    decode: the same way back, with enlarging convolutions and one more block per stage

One network for SD 1 and 2, SDXL, SD 3 and FLUX.1, in two kinds: the older has 4 latent
channels and 1x1 convolutions around the latents, the newer 16 and none. Latents here
are as the network makes them; the scale that diffusion models want belongs to
`checkpoints.autoencoders`.

Source: Rombach et al. 2022, arXiv:2112.10752, App. G; the sizes are those of diffusers'
    `AutoencoderKL`, which gives the same numbers.
Differs from the source: edges of images must be multiples of the factor.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxguide.errors import InputError
from jaxguide.models.attention import fused_attention
from jaxguide.models.convolution import GroupNorm, enlarge, make_conv
from jaxguide.models.halves import Halves
from jaxguide.runtime.devices import DTYPES

Params = dict
LOG_VARIANCES = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class AutoencoderKLConfig:
    """Architecture of one autoencoder; the defaults are those of Stable Diffusion 1.

    Args:
        widths: channels of the stages, from the image inwards; multiples of `groups`.
        layers: residual blocks of an encoder stage; a decoder stage has one more.
        latent_channels: channels of a latent; 16 for SD 3 and FLUX.1.
        groups: of the group norms.
        in_channels, out_channels: of the images.
        quant_conv, post_quant_conv: whether there is a 1x1 convolution behind the
            encoder and before the decoder; not in SD 3 and FLUX.1.
        mid_attention: whether there is attention between the innermost blocks.
        dtype: of the computation; parameters stay float32.

    Raises:
        InputError: if a number is out of range.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    groups: int = 32
    in_channels: int = 3
    out_channels: int = 3
    quant_conv: bool = True
    post_quant_conv: bool = True
    mid_attention: bool = True
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("layers", "latent_channels", "groups", "in_channels"):
            self._need(getattr(self, name) >= 1, name, ">= 1")
        self._need(self.out_channels >= 1, "out_channels", ">= 1")
        fits = all(width > 0 and width % self.groups == 0 for width in self.widths)
        fits = fits and len(self.widths) > 0
        self._need(fits, "widths", f"of multiples of groups={self.groups}")
        self._need(self.dtype in DTYPES, "dtype", f"in {DTYPES}")

    def _need(self, holds: bool, name: str, condition: str) -> None:
        if not holds:
            raise InputError(
                f"AutoencoderKLConfig: need {name} {condition}, got "
                f"{name}={getattr(self, name)!r}. Change {name}."
            )

    @property
    def channels(self) -> int:
        """Of the images that are encoded."""
        return self.in_channels

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along an edge."""
        return 2 ** (len(self.widths) - 1)


class ResBlock(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); a 1x1 where the width changes."""

    def __init__(
        self, inputs: int, outputs: int, config: AutoencoderKLConfig, rngs: nnx.Rngs
    ):
        self.norm1 = GroupNorm(inputs, config.groups)
        self.conv1 = make_conv(inputs, outputs, rngs)
        self.norm2 = GroupNorm(outputs, config.groups)
        self.conv2 = make_conv(outputs, outputs, rngs)
        same = inputs == outputs
        self.shortcut = None if same else make_conv(inputs, outputs, rngs, size=1)

    def __call__(self, x: Array) -> Array:
        """[B, H, W, outputs]."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """Self-attention over all pixels, one head, added to its input."""

    def __init__(self, width: int, config: AutoencoderKLConfig, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, width, width, rngs=rngs)
        self.norm = GroupNorm(width, config.groups)
        self.query, self.key, self.value = linear(), linear(), linear()
        self.out = linear()

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C]."""
        batch, height, width, channels = x.shape
        tokens = self.norm(x).reshape(batch, height * width, 1, channels)
        mixed = fused_attention(
            self.query(tokens), self.key(tokens), self.value(tokens)
        )
        return x + self.out(mixed).reshape(x.shape)


class Stage(nnx.Module):
    """Residual blocks at one resolution, with or without attention after the first."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        count: int,
        config: AutoencoderKLConfig,
        rngs: nnx.Rngs,
        *,
        attention: bool = False,
    ):
        self.count = count
        for number in range(count):
            block = ResBlock(outputs if number else inputs, outputs, config, rngs)
            setattr(self, f"block_{number}", block)
        self.attention = Attention(outputs, config, rngs) if attention else None

    def __call__(self, x: Array) -> Array:
        """[B, H, W, outputs]."""
        for number in range(self.count):
            x = getattr(self, f"block_{number}")(x)
            if number == 0 and self.attention is not None:
                x = self.attention(x)
        return x


class Encoder(nnx.Module):
    """Images to means and log variances, joined along the channels."""

    def __init__(self, config: AutoencoderKLConfig, rngs: nnx.Rngs):
        widths, outputs = config.widths, 2 * config.latent_channels
        self.stages = len(widths)
        self.conv_in = make_conv(config.in_channels, widths[0], rngs)
        for number, width in enumerate(widths):
            inputs = widths[max(number - 1, 0)]
            stage = Stage(inputs, width, config.layers, config, rngs)
            setattr(self, f"stage_{number}", stage)
            if number < self.stages - 1:
                after = ((0, 1), (0, 1))  # zeros below and on the right only
                halve = make_conv(width, width, rngs, stride=2, padding=after)
                setattr(self, f"halve_{number}", halve)
        self.middle = _middle(config, rngs)
        self.norm_out = GroupNorm(widths[-1], config.groups)
        self.conv_out = make_conv(widths[-1], outputs, rngs)
        quant = config.quant_conv
        self.quant = make_conv(outputs, outputs, rngs, size=1) if quant else None

    def __call__(self, x: Array) -> Array:
        """[B, H, W, in_channels] to [B, h, w, 2 latent_channels]."""
        x = self.conv_in(x)
        for number in range(self.stages):
            x = getattr(self, f"stage_{number}")(x)
            if number < self.stages - 1:
                x = getattr(self, f"halve_{number}")(x)
        x = self.conv_out(jax.nn.silu(self.norm_out(self.middle(x))))
        return x if self.quant is None else self.quant(x)


class Decoder(nnx.Module):
    """Latents to images."""

    def __init__(self, config: AutoencoderKLConfig, rngs: nnx.Rngs):
        widths, inputs = config.widths[::-1], config.latent_channels
        self.stages = len(widths)
        quant = config.post_quant_conv
        self.quant = make_conv(inputs, inputs, rngs, size=1) if quant else None
        self.conv_in = make_conv(inputs, widths[0], rngs)
        self.middle = _middle(config, rngs)
        for number, width in enumerate(widths):
            before = widths[max(number - 1, 0)]
            stage = Stage(before, width, config.layers + 1, config, rngs)
            setattr(self, f"stage_{number}", stage)
            if number < self.stages - 1:
                setattr(self, f"double_{number}", make_conv(width, width, rngs))
        self.norm_out = GroupNorm(widths[-1], config.groups)
        self.conv_out = make_conv(widths[-1], config.out_channels, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, latent_channels] to [B, H, W, out_channels]."""
        x = x if self.quant is None else self.quant(x)
        x = self.middle(self.conv_in(x))
        for number in range(self.stages):
            x = getattr(self, f"stage_{number}")(x)
            if number < self.stages - 1:
                x = getattr(self, f"double_{number}")(enlarge(x))
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


def _middle(config: AutoencoderKLConfig, rngs: nnx.Rngs) -> Stage:
    width, attention = config.widths[-1], config.mid_attention
    return Stage(width, width, 2, config, rngs, attention=attention)


def _clipped(moments: Array) -> Array:
    """Means and log variances [B, h, w, 2c], the latter within `LOG_VARIANCES`."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    log_variance = jnp.clip(log_variance, *LOG_VARIANCES)
    return jnp.concatenate([mean, log_variance], axis=-1)


HALVES = Halves(Encoder, Decoder, _clipped)
init = HALVES.init
encode = HALVES.encode
decode = HALVES.decode
encode_tiled = HALVES.encode_tiled
decode_tiled = HALVES.decode_tiled
