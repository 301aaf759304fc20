"""Averaged weights, resumable training states, and weight files to share."""

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
