"""Latents of images: `python -m jaxguide.data.encode --config configs/encode.py`."""

from __future__ import annotations

from jaxguide import cli, config, data
from jaxguide.config_encode import EncodeConfig, build_encoder
from jaxguide.hosts import ALONE, Hosts


def run(settings: EncodeConfig, processes: Hosts = ALONE) -> None:
    """Encodes the images that the config names, or carries on with them."""
    source = config.build_dataset(settings.data)
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
    cli.run(run)


if __name__ == "__main__":
    main()
