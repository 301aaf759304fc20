"""Data sets as plain data: names in configs into opened sources."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxguide import data
from jaxguide.runtime import values
from jaxguide.runtime.calls import lookup


@dataclass
class DataConfig:
    """Which examples to train on.

    Args:
        name: one of `DATASETS`.
        path: file or folder (emoji, npz, image_folder, latents; optional:
            fashion_mnist), or the catalogue name of "tfds".
        split: "train" or "test" where the set has them; any split of TFDS.
        size: edge in pixels, of "image_folder", "tfds", "imagenet", "emoji" (32 or
            16), and in latent pixels of "made_latents"; 0 is that of the set, or 32.
        flip: mirror examples at random.
        classes: of "made_latents".
    """

    name: str = "digits"
    path: str = ""
    split: str = "train"
    size: int = values.number(0, 0, 16_384)
    flip: bool = False
    classes: int = values.number(1000, 1, 1_000_000)


def _made_latents(config: DataConfig) -> data.Source:
    size = config.size or 32
    return data.made_latents(shape=(size, size, 4), classes=config.classes)


DATASETS: dict[str, Callable[[DataConfig], data.Source]] = {
    "digits": lambda c: data.digits(split=c.split),
    "emoji": lambda c: data.emoji(c.path, split=c.split, size=c.size or 32),
    "fashion_mnist": lambda c: data.fashion_mnist(split=c.split, folder=c.path),
    "image_folder": lambda c: data.image_folder(c.path, size=c.size),
    "imagenet": lambda c: data.open_tfds("imagenet2012", split=c.split, size=c.size),
    "latents": lambda c: data.LatentCache(c.path),
    "made_latents": _made_latents,
    "npz": lambda c: data.npz(c.path),
    "tfds": lambda c: data.open_tfds(c.path, split=c.split, size=c.size),
}


def build_dataset(config: DataConfig) -> data.Source:
    """Opens the data set.

    Raises:
        InputError: if the name is unknown or the files are missing.
    """
    return lookup("build_dataset", config.name, DATASETS)(config)
