"""Latents of images: `python -m jaxguide.data.encode --config configs/encode.py`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax

from jaxguide import data
from jaxguide.data import config as data_config
from jaxguide.data.config import DataConfig
from jaxguide.models.autoencoders import encode_moments, load_autoencoder
from jaxguide.runtime import flags, values
from jaxguide.runtime.calls import call, imported, lookup, parse_call
from jaxguide.runtime.hosts import ALONE, Hosts

DTYPES = ("float32", "bfloat16", "float16")


def autoencoder(file: str, dtype: str = "float32") -> data.Encoder:
    """A converted autoencoder; see `python -m jaxguide.convert --help`.

    Args:
        file: that the conversion wrote.
        dtype: of the computation, one of `DTYPES`.
    """
    lookup("autoencoder dtype", dtype, dict.fromkeys(DTYPES))
    loaded = load_autoencoder(file)
    config = dataclasses.replace(loaded.config, dtype=dtype)
    encode = jax.tree_util.Partial(
        encode_moments, dataclasses.replace(loaded, config=config)
    )
    name = f"autoencoder({Path(file).name})"
    return data.Encoder(name, encode, loaded.scale, loaded.shift)


ENCODERS: dict[str, Callable[..., data.Encoder]] = {
    "autoencoder": autoencoder,
    "space_to_depth": data.space_to_depth,
}


@dataclass
class EncodeConfig:
    """One cache: `python -m jaxguide.data.encode --config configs/encode.py`.

    Args:
        data: the images; its `flip` is not used.
        encoder: one of `ENCODERS`, with arguments if wanted, as in
            "autoencoder(file='vae.safetensors')"; or "package.module:function", of
            images [B, H, W, C] in [-1, 1], to means and log variances [B, h, w, 2c].
        scale, shift: of such a function, x0 = (latent - shift) * scale; those of
            `ENCODERS` bring their own.
        folder: where the latents go; a stopped run is carried on.
        format: "npz" or "array_record".
        dtype: of the moments, "float16" or "float32".
        mirrored: encode mirror images too, for training with flips.
        batch_size: images per call.
        shard_size: images per file.
    """

    data: DataConfig = field(default_factory=DataConfig)
    encoder: str = "space_to_depth"
    scale: float = 1.0
    shift: float = 0.0
    folder: str = "outputs/latents"
    format: str = "npz"
    dtype: str = "float16"
    mirrored: bool = True
    batch_size: int = values.number(64, 1)
    shard_size: int = values.number(4096, 1)


def build_encoder(config: EncodeConfig) -> data.Encoder:
    """The encoder that the config names.

    Raises:
        InputError: if the name, an argument or the function is unknown.
    """
    if ":" in config.encoder:
        function = imported("build_encoder", config.encoder)
        return data.Encoder(config.encoder, function, config.scale, config.shift)
    name, arguments = parse_call("build_encoder", config.encoder)
    factory = lookup("build_encoder", name, ENCODERS)
    return call("build_encoder", factory, arguments)


def run(settings: EncodeConfig, processes: Hosts = ALONE) -> None:
    """Encodes the images that the config names, or carries on with them."""
    source = data_config.build_dataset(settings.data)
    images = settings.data
    done = data.write_latents(
        source,
        build_encoder(settings),
        settings.folder,
        format=settings.format,
        dtype=settings.dtype,
        mirrored=settings.mirrored,
        batch_size=settings.batch_size,
        shard_size=settings.shard_size,
        note={"data": images.name, "split": images.split, "size": images.size},
        share=processes.share,
    )
    if done:
        print(f"{len(source)} images encoded; train with --config.data.name=latents")
        print(f"  --config.data.path={settings.folder}")
    else:
        print(f"the files of host {processes.index} are written; others are missing")


def main() -> None:
    """The command line."""
    flags.run(run)


if __name__ == "__main__":
    from jaxguide.data import encode  # configs name the classes of this module

    encode.main()
