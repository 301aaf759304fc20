"""Averaged weights, resumable training states, and weight files to share."""

from jaxguide.checkpoints.autoencoders import (
    Autoencoder as Autoencoder,
    decode_latents as decode_latents,
    encode_moments as encode_moments,
    load_autoencoder as load_autoencoder,
    save_autoencoder as save_autoencoder,
)
from jaxguide.checkpoints.ema import ema_decay as ema_decay, ema_update as ema_update
from jaxguide.checkpoints.orbax import Checkpoints as Checkpoints
from jaxguide.checkpoints.published import (
    read_published as read_published,
    write_published as write_published,
)
from jaxguide.checkpoints.weights import (
    Weights as Weights,
    load_weights as load_weights,
    save_weights as save_weights,
)
