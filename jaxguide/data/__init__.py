"""Data sets as `Source`s, in an order that depends on (seed, step) alone."""

from jaxguide.data.bundled import digits as digits
from jaxguide.data.crop import centre_crop as centre_crop
from jaxguide.data.dataset import (
    Dataset as Dataset,
    in_memory as in_memory,
    to_uint8 as to_uint8,
    to_unit as to_unit,
)
from jaxguide.data.emoji import emoji as emoji
from jaxguide.data.encoding import (
    Encoder as Encoder,
    space_to_depth as space_to_depth,
    write_latents as write_latents,
)
from jaxguide.data.fashion import fashion_mnist as fashion_mnist
from jaxguide.data.files import npz as npz
from jaxguide.data.identity import identity as identity
from jaxguide.data.image_folder import (
    ImageFolder as ImageFolder,
    image_folder as image_folder,
)
from jaxguide.data.latents import LatentCache as LatentCache
from jaxguide.data.made import MadeLatents as MadeLatents, made_latents as made_latents
from jaxguide.data.order import batch as batch, draws as draws, indices as indices
from jaxguide.data.prefetch import Prefetch as Prefetch
from jaxguide.data.source import Batch as Batch, Source as Source
from jaxguide.data.tfds_source import (
    TfdsSource as TfdsSource,
    open_tfds as open_tfds,
    tfds_images as tfds_images,
)
