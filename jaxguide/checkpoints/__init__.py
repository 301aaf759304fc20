"""Averaged weights, resumable training states, and weight files to share."""

from jaxguide.checkpoints.ema import ema_decay as ema_decay
from jaxguide.checkpoints.ema import ema_update as ema_update
from jaxguide.checkpoints.orbax import Checkpoints as Checkpoints
from jaxguide.checkpoints.weights import Weights as Weights
from jaxguide.checkpoints.weights import load_weights as load_weights
from jaxguide.checkpoints.weights import save_weights as save_weights
