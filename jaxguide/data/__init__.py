"""Data sets in memory, in an order that depends on (seed, step) alone."""

from jaxguide.data.bundled import digits as digits
from jaxguide.data.dataset import Batch as Batch
from jaxguide.data.dataset import Dataset as Dataset
from jaxguide.data.dataset import batch as batch
from jaxguide.data.dataset import indices as indices
from jaxguide.data.dataset import to_uint8 as to_uint8
from jaxguide.data.dataset import to_unit as to_unit
from jaxguide.data.emoji import emoji as emoji
from jaxguide.data.fashion import fashion_mnist as fashion_mnist
from jaxguide.data.files import image_folder as image_folder
from jaxguide.data.files import npz as npz
from jaxguide.data.tfds_source import tfds_images as tfds_images
