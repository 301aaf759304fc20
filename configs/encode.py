"""Latents of a folder of pictures, 256 x 256, and of their mirror images.

Run:      python -m jaxguide.data.encode --config configs/encode.py \\
              --config.data.path=imagenet/train --config.folder=outputs/latents
          A stopped run is carried on by the same command. ImageNet as TFDS prepared
          it: --config.data.name=imagenet. On several hosts with one shared folder:
          --num_processes=8 --process_id=<number>.
Train:    any config with --config.data.name=latents --config.data.path=<the folder>
          --config.data.flip=True
Cost:     not measured. Moments of 32 x 32 x 4 latents take 32 KB per image in float16,
          42 GB for ImageNet; one file of 4,096 images is in memory at a time.
Expected: manifest.json and moments-*.npz. "space_to_depth" is an exact stand-in of the
          same factor, 8, with 192 channels; docs/autoencoders.md has real ones:
          --config.encoder="autoencoder(file='sd-vae-ft-ema.safetensors')"
          or one of yours: --config.encoder=package.module:function.
"""

from jaxguide.data.config import DataConfig
from jaxguide.data.encode import EncodeConfig
from jaxguide.runtime.config_file import variant


def get_config(arg: str = "") -> EncodeConfig:
    """The run; `arg="tiny"` encodes 1,498 digits in seconds."""
    if variant(arg, "", "tiny") == "tiny":
        return EncodeConfig(
            data=DataConfig(name="digits"),
            encoder="space_to_depth(factor=4)",
            folder="outputs/latents-tiny",
            shard_size=512,
        )
    return EncodeConfig(
        data=DataConfig(name="image_folder", path="data/images", size=256),
        encoder="space_to_depth",
        folder="outputs/latents",
    )
