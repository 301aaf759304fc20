"""A DiT as guidance, samplers and losses call it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxguide.models.dit import Params, apply, split_sigma
from jaxguide.models.dit_config import DiTConfig


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The forward pass of one architecture, `(params, x, t, label) -> prediction`.

    Two of equal configs are equal, so that one is static under jit: put the parameters
    beside it with `jax.tree_util.Partial`, or `functools.partial` inside of jit.

    Args:
        model: the architecture.

    >>> predict = Predictor(DiTConfig(4, 1, 2, 8, 1, 1, num_classes=3))
    """

    model: DiTConfig

    def __call__(
        self, params: Params, x: Array, t: Array, label: Array, **named: Any
    ) -> Any:
        """One forward pass.

        Args:
            params: as returned by `init`.
            x: [B, H, W, C].
            t: noise times [B].
            label: int32 [B].
            **named: for every name in `model.inputs` a number, or one per image [B];
                and the taps of `apply`.

        Returns:
            The prediction [B, H, W, C]; with `model.learn_sigma` the pair of it and
            the raw variance; with `record_attention` the triple of both (or None) and
            the record.
        """
        given = [name for name in self.model.inputs if name in named]
        numbers = {name: jnp.full_like(t, named.pop(name)) for name in given}
        output = apply(self.model, params, x, t, label, numbers=numbers, **named)
        if named.get("record_attention", False):
            output, record = output
            return (*split_sigma(self.model, output), record)
        prediction, variance = split_sigma(self.model, output)
        return prediction if variance is None else (prediction, variance)
