"""The TAESD family: small autoencoders distilled from large ones, in Flax NNX.

    block:  relu(conv(relu(conv(relu(conv(x))))) + x)
    encode: conv, block, then three times: halving conv, blocks; conv
    decode: 3 tanh(z / 3), conv, relu, then three times: blocks, enlarging conv;
            block, conv

There is a network of this kind for the latents of SD 1 and 2 (TAESD), SDXL, SD 3,
FLUX.1 (TAEF1) and FLUX.2 (TAEF2). Latents are those that the diffusion model sees:
already scaled. Encoding gives one value per latent, no variance.

Source: github.com/madebyollin/taesd, and diffusers' `AutoencoderTiny`, which gives the
    same numbers.
Differs from the source: images are in [-1, 1], not in [0, 1].
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxguide.errors import InputError
from jaxguide.models.convolution import GroupNorm, enlarge, make_conv
from jaxguide.models.halves import Halves
from jaxguide.runtime.devices import DTYPES

Params = dict
LIMIT = 3.0
POOL_FACTOR, POOL_GROUPS, POOL_EPSILON = 4, 4, 1e-5


@dataclasses.dataclass(frozen=True)
class TinyAutoencoderConfig:
    """Architecture of one tiny autoencoder; the defaults are those of TAESD.

    Args:
        latent_channels: 4 for SD 1, 2 and SDXL, 16 for SD 3 and FLUX.1, 32 for FLUX.2.
        width: channels inside.
        encoder_blocks, decoder_blocks: blocks at every resolution, in the order in
            which they run; a factor of 2 lies between them.
        channels: of the images.
        pooled: whether blocks at the resolution of the latents also see the statistics
            of the whole image, by a group norm; in TAEF2 they do.
        dtype: of the computation; parameters stay float32.

    Raises:
        InputError: if a number is out of range.
    """

    latent_channels: int = 4
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    channels: int = 3
    pooled: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("latent_channels", "width", "channels"):
            self._need(getattr(self, name) >= 1, name, ">= 1")
        for name in ("encoder_blocks", "decoder_blocks"):
            counts = getattr(self, name)
            whole = len(counts) > 0 and min(counts) >= 0
            self._need(whole, name, "of numbers >= 0")
        same = len(self.encoder_blocks) == len(self.decoder_blocks)
        self._need(same, "decoder_blocks", "as long as encoder_blocks")
        self._need(self.dtype in DTYPES, "dtype", f"in {DTYPES}")

    def _need(self, holds: bool, name: str, condition: str) -> None:
        if not holds:
            raise InputError(
                f"TinyAutoencoderConfig: need {name} {condition}, got "
                f"{name}={getattr(self, name)!r}. Change {name}."
            )

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along an edge."""
        return 2 ** (len(self.encoder_blocks) - 1)


class Pool(nnx.Module):
    """x + conv(relu(norm(conv(x)))), all convolutions 1x1."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        conv = functools.partial(make_conv, rngs=rngs, size=1, bias=False)
        wide = width * POOL_FACTOR
        self.conv1 = conv(width, wide)
        self.norm = GroupNorm(wide, POOL_GROUPS, epsilon=POOL_EPSILON)
        self.conv2 = conv(wide, width)

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C]."""
        return x + self.conv2(jax.nn.relu(self.norm(self.conv1(x))))


class Block(nnx.Module):
    """relu(conv(relu(conv(relu(conv(x))))) + x), after a pool where there is one."""

    def __init__(self, width: int, pooled: bool, rngs: nnx.Rngs):
        self.pool = Pool(width, rngs) if pooled else None
        self.conv1 = make_conv(width, width, rngs)
        self.conv2 = make_conv(width, width, rngs)
        self.conv3 = make_conv(width, width, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C]."""
        x = x if self.pool is None else self.pool(x)
        hidden = jax.nn.relu(self.conv1(x))
        hidden = self.conv3(jax.nn.relu(self.conv2(hidden)))
        return jax.nn.relu(hidden + x)


class Stage(nnx.Module):
    """Blocks at one resolution."""

    def __init__(self, width: int, count: int, pooled: bool, rngs: nnx.Rngs):
        self.count = count
        for number in range(count):
            setattr(self, f"block_{number}", Block(width, pooled, rngs))

    def __call__(self, x: Array) -> Array:
        """[B, H, W, C]."""
        for number in range(self.count):
            x = getattr(self, f"block_{number}")(x)
        return x


class TinyEncoder(nnx.Module):
    """Images in [-1, 1] to latents."""

    def __init__(self, config: TinyAutoencoderConfig, rngs: nnx.Rngs):
        width, counts = config.width, config.encoder_blocks
        self.stages = len(counts)
        self.conv_in = make_conv(config.channels, width, rngs)
        for number, count in enumerate(counts):
            if number:
                halve = make_conv(width, width, rngs, stride=2, bias=False)
                setattr(self, f"halve_{number}", halve)
            pooled = config.pooled and number == self.stages - 1
            setattr(self, f"stage_{number}", Stage(width, count, pooled, rngs))
        self.conv_out = make_conv(width, config.latent_channels, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, H, W, channels] to [B, h, w, latent_channels]."""
        x = self.conv_in((x + 1) / 2)
        for number in range(self.stages):
            if number:
                x = getattr(self, f"halve_{number}")(x)
            x = getattr(self, f"stage_{number}")(x)
        return self.conv_out(x)


class TinyDecoder(nnx.Module):
    """Latents to images in [-1, 1]."""

    def __init__(self, config: TinyAutoencoderConfig, rngs: nnx.Rngs):
        width, counts = config.width, config.decoder_blocks
        self.stages = len(counts)
        self.conv_in = make_conv(config.latent_channels, width, rngs)
        for number, count in enumerate(counts):
            if number:
                double = make_conv(width, width, rngs, bias=False)
                setattr(self, f"double_{number}", double)
            pooled = config.pooled and number == 0
            setattr(self, f"stage_{number}", Stage(width, count, pooled, rngs))
        self.conv_out = make_conv(width, config.channels, rngs)

    def __call__(self, x: Array) -> Array:
        """[B, h, w, latent_channels] to [B, H, W, channels]."""
        x = jax.nn.relu(self.conv_in(LIMIT * jnp.tanh(x / LIMIT)))
        for number in range(self.stages):
            if number:
                x = getattr(self, f"double_{number}")(enlarge(x))
            x = getattr(self, f"stage_{number}")(x)
        return 2 * self.conv_out(x) - 1


HALVES = Halves(TinyEncoder, TinyDecoder)
init = HALVES.init
encode = HALVES.encode
decode = HALVES.decode
encode_tiled = HALVES.encode_tiled
decode_tiled = HALVES.decode_tiled
