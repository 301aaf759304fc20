"""Autoencoders with the scale of their latents: to keep in a file, and to use.

    x0 = (latent - shift) * scale        latent = x0 / scale + shift

has about unit variance: it is what a diffusion model is trained on and samples.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jaxguide.errors import InputError
from jaxguide.models import autoencoder_kl, container, header, tiny_autoencoder
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.convolution import parameter_shapes
from jaxguide.models.shown import by_kl, by_tiny
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from jaxguide.runtime.calls import lookup

FORMAT = "jaxguide-autoencoder-1"
Config = AutoencoderKLConfig | TinyAutoencoderConfig
KL, TINY = "autoencoder-kl", "tiny"
KINDS: dict[str, type] = {KL: AutoencoderKLConfig, TINY: TinyAutoencoderConfig}


class Family(NamedTuple):
    """Latents of one kind of autoencoder.

    Attributes:
        channels: of the latents.
        scale, shift: x0 = (latent - shift) * scale.
        kind: of network, one of `KINDS`.
        about: what uses them.
    """

    channels: int
    scale: float
    shift: float
    kind: str
    about: str


FAMILIES = {
    "sd": Family(4, 0.18215, 0.0, KL, "Stable Diffusion 1, 2, sd-vae-ft-*, DiT, SiT"),
    "sdxl": Family(4, 0.13025, 0.0, KL, "Stable Diffusion XL"),
    "sd3": Family(16, 1.5305, 0.0609, KL, "Stable Diffusion 3 and 3.5"),
    "flux": Family(16, 0.3611, 0.1159, KL, "FLUX.1"),
    "taesd": Family(4, 1.0, 0.0, TINY, "x0 of sd"),
    "taesdxl": Family(4, 1.0, 0.0, TINY, "x0 of sdxl"),
    "taesd3": Family(16, 1.0, 0.0, TINY, "x0 of sd3"),
    "taef1": Family(16, 1.0, 0.0, TINY, "x0 of flux"),
    "taef2": Family(32, 1.0, 0.0, TINY, "x0 of FLUX.2, before it is folded"),
}


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """An autoencoder, ready to use; a pytree, so that jitted functions may take it.

    Attributes:
        config: its architecture; static.
        params: nested dict of float32 arrays, as `init` of its model makes them.
        scale, shift: x0 = (latent - shift) * scale.
        note: free JSON-able facts: where it comes from; static.
    """

    config: Config
    params: Any
    scale: float
    shift: float
    note: dict = dataclasses.field(default_factory=dict)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """Arrays, and what is static."""
        note = json.dumps(self.note, sort_keys=True)
        return (self.params, self.scale, self.shift), (self.config, note)

    @classmethod
    def tree_unflatten(cls, static: tuple, leaves: tuple) -> Autoencoder:
        """From what `tree_flatten` returned."""
        (config, note), (params, scale, shift) = static, leaves
        return cls(config, params, scale, shift, json.loads(note))

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along an edge."""
        return self.config.factor


def save_autoencoder(
    path: str | Path, autoencoder: Autoencoder, *, dtype: str = "float32"
) -> None:
    """Writes an autoencoder to one `.safetensors` file.

    Args:
        path: of the file; its folder is made if missing.
        autoencoder: what to write.
        dtype: storage type of the parameters; float16, bfloat16 or float32.

    Raises:
        InputError: if `dtype` is unknown.
        NonFiniteError: if a value is NaN or infinite, or too large for `dtype`.
        UnwritableError: if the file cannot be written.
    """
    kinds = {config: name for name, config in KINDS.items()}
    about = {
        "format": FORMAT,
        "kind": kinds[type(autoencoder.config)],
        "config": dataclasses.asdict(autoencoder.config),
        "scale": float(autoencoder.scale),
        "shift": float(autoencoder.shift),
        "note": autoencoder.note,
    }
    container.write("save_autoencoder", path, about, autoencoder.params, dtype)


def load_autoencoder(path: str | Path) -> Autoencoder:
    """Reads a file of `save_autoencoder`; parameters come back as float32.

    Raises:
        InputError: if the file is missing, was not written by `save_autoencoder`, or
            says something else of the network than its arrays show.
        NonFiniteError: if a value is NaN or infinite.
    """
    owner, writer = "load_autoencoder", "save_autoencoder or jaxguide.convert"
    autoencoder, params = container.read(owner, path, FORMAT, writer, _meaning)
    return dataclasses.replace(autoencoder, params=params)


def _meaning(about: dict[str, Any]) -> header.Meaning:
    """What the header of a file means; the parameters are still missing."""
    kind = header.field(about, "kind", str, ...)
    config = header.architecture(lookup("header", kind, KINDS), about, "config")
    scale, shift = (header.field(about, n, float, ...) for n in ("scale", "shift"))
    if scale <= 0:
        raise InputError(
            f"header: need scale > 0, got scale={scale!r}. Write the file anew."
        )
    note = header.field(about, "note", dict, ...)
    model, shown = (
        (autoencoder_kl, by_kl) if kind == KL else (tiny_autoencoder, by_tiny)
    )

    def wanted(names: header.Shapes) -> header.Shapes:
        """Of the halves that are there."""
        shapes = parameter_shapes(model.init, config)
        there = {name.split(".")[0] for name in names} & set(shapes) or set(shapes)
        flat: dict[str, Any] = traverse_util.flatten_dict(
            {half: shapes[half] for half in there}, sep="."
        )
        return {name: tuple(leaf.shape) for name, leaf in flat.items()}

    autoencoder = Autoencoder(config, {}, scale, shift, note)
    return header.Meaning(autoencoder, functools.partial(shown, config), wanted)


def encode_moments(autoencoder: Autoencoder, images: Array) -> Array:
    """Means and log variances of latents, as `data.Encoder` wants them.

    Args:
        autoencoder: what encodes; tiny ones have no variance.
        images: [B, H, W, C] in [-1, 1]; edges are multiples of the factor.

    Returns:
        [B, h, w, 2c], neither shifted nor scaled yet.
    """
    return _encode(autoencoder.config, autoencoder.params, images)


def decode_latents(
    autoencoder: Autoencoder, x0: Array, *, tile: int = 0, overlap: int = 0
) -> Array:
    """Images of what a diffusion model has made.

    Args:
        autoencoder: what decodes.
        x0: [B, h, w, c]; x0 = (latent - shift) * scale.
        tile: latent pixels along the edge of a tile, for images whose activations do
            not fit into memory; 0 is all in one.
        overlap: latent pixels that tiles share; 0 is a quarter of the tile.

    Returns:
        [B, H, W, C] in [-1, 1], dtype of `x0`.
    """
    tiles = (tile, overlap or tile // 4) if tile else None
    scale, shift = (jnp.float32(n) for n in (autoencoder.scale, autoencoder.shift))
    decoder = {"decoder": autoencoder.params["decoder"]}
    return _decode(autoencoder.config, tiles, decoder, x0, scale, shift)


def decoder_of(
    owner: str, path: str | Path, channels: int, *, hint: str = ""
) -> Callable[[Array], Array]:
    """`decode_latents` of a file, as a pytree: weights are no part of a program.

    Args:
        owner: the public name that an error begins with.
        path: of a file that `save_autoencoder` wrote.
        channels: of the latents that are to be decoded.
        hint: which autoencoder it should be.

    Raises:
        InputError: if the file is missing or for latents of other channels.
    """
    autoencoder = load_autoencoder(path)
    latent_channels = autoencoder.config.latent_channels
    if latent_channels != channels:
        raise InputError(
            f"{owner}: need an autoencoder of {channels} latent channels, got "
            f"{latent_channels} in {str(path)!r}. Use that of the latents"
            f"{hint and f', {hint}'}."
        )
    return jax.tree_util.Partial(decode_latents, autoencoder)


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: Config, params: Any, images: Array) -> Array:
    if isinstance(config, AutoencoderKLConfig):
        return autoencoder_kl.encode(config, params, images)
    mean = tiny_autoencoder.encode(config, params, images)
    return jnp.concatenate([mean, jnp.full_like(mean, -jnp.inf)], axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(
    config: Config,
    tiles: tuple[int, int] | None,
    params: Any,
    x0: Array,
    scale: Array,
    shift: Array,
) -> Array:
    latents = (x0.astype(jnp.float32) / scale + shift).astype(x0.dtype)
    kind = isinstance(config, AutoencoderKLConfig)
    model: Any = autoencoder_kl if kind else tiny_autoencoder
    if tiles is None:
        images = model.decode(config, params, latents)
    else:
        tile, overlap = tiles
        images = model.decode_tiled(config, params, latents, tile=tile, overlap=overlap)
    return jnp.clip(images, -1, 1)
