"""Resumable training states."""

from jaxguide.train.checkpoints.orbax import Checkpoints as Checkpoints
