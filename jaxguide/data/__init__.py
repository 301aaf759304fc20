"""Data sets in memory, in an order that depends on (seed, step) alone."""

from jaxguide.data.bundled import digits as digits
from jaxguide.data.dataset import (
    Batch as Batch,
    Dataset as Dataset,
    batch as batch,
    indices as indices,
    to_uint8 as to_uint8,
    to_unit as to_unit,
)
from jaxguide.data.emoji import emoji as emoji
from jaxguide.data.fashion import fashion_mnist as fashion_mnist
from jaxguide.data.files import image_folder as image_folder, npz as npz
from jaxguide.data.tfds_source import tfds_images as tfds_images
