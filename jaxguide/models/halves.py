"""The two halves of an autoencoder as pure functions of (config, params, ...)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from jaxguide.models import convolution
from jaxguide.models.tiling import tiled


def _same(x: Array) -> Array:
    return x


@dataclasses.dataclass(frozen=True)
class Halves:
    """Encoder and decoder; a config has `channels`, `latent_channels` and `factor`.

    Args:
        encoder, decoder: modules, made by `module(config, rngs)`.
        finish: what becomes of all that the encoder returns.
    """

    encoder: type[nnx.Module]
    decoder: type[nnx.Module]
    finish: Callable[[Array], Array] = _same

    def init(self, config: Any, key: Array) -> dict:
        """Fresh parameters.

        Args:
            config: the architecture.
            key: PRNG key.

        Returns:
            {"encoder": ..., "decoder": ...}, nested dicts of float32 arrays; one of the
            two is enough for the functions that use no other.
        """
        first, second = jax.random.split(key)
        return {
            "encoder": convolution.fresh(self.encoder, config, first),
            "decoder": convolution.fresh(self.decoder, config, second),
        }

    def encode(self, config: Any, params: dict, images: Array) -> Array:
        """What the encoder makes of images: latents, or their moments.

        Args:
            config: the architecture; static.
            params: as returned by `init`.
            images: [B, H, W, C] in [-1, 1]; edges are multiples of `config.factor`.

        Returns:
            [B, h, w, c], or means and log variances [B, h, w, 2c]; dtype of `images`.

        Raises:
            InputError: if the shape is wrong.
        """
        convolution.check_images(images, config.channels, config.factor)
        encoded = convolution.run(self.encoder, config, params["encoder"], images)
        return self.finish(encoded)

    def decode(self, config: Any, params: dict, latents: Array) -> Array:
        """Images of latents.

        Args:
            config: the architecture; static.
            params: as returned by `init`.
            latents: [B, h, w, c], as the encoder makes them.

        Returns:
            [B, H, W, C], dtype of `latents`; about [-1, 1], not clipped.

        Raises:
            InputError: if the shape is wrong.
        """
        convolution.check_latents(latents, config.latent_channels)
        return convolution.run(self.decoder, config, params["decoder"], latents)

    def encode_tiled(
        self,
        config: Any,
        params: dict,
        images: Array,
        *,
        tile: int = 64,
        overlap: int = 16,
    ) -> Array:
        """`encode`, tile by tile; see `models.tiling`.

        Args:
            config, params, images: as for `encode`.
            tile, overlap: in latent pixels.
        """
        convolution.check_images(images, config.channels, config.factor)
        run = functools.partial(
            convolution.run, self.encoder, config, params["encoder"]
        )
        cells = {"cell_in": config.factor, "cell_out": 1}
        return self.finish(tiled(run, images, tile=tile, overlap=overlap, **cells))

    def decode_tiled(
        self,
        config: Any,
        params: dict,
        latents: Array,
        *,
        tile: int = 64,
        overlap: int = 16,
    ) -> Array:
        """`decode`, tile by tile; see `models.tiling`.

        Args:
            config, params, latents: as for `decode`.
            tile, overlap: in latent pixels.
        """
        convolution.check_latents(latents, config.latent_channels)
        run = functools.partial(
            convolution.run, self.decoder, config, params["decoder"]
        )
        cells = {"cell_in": 1, "cell_out": config.factor}
        return tiled(run, latents, tile=tile, overlap=overlap, **cells)
