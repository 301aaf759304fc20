"""A predictor and what must be known about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._checks import shown
from jaxguide.guidance._numbers import pytree
from jaxguide.paths import Path


@pytree("predict")
class Network:
    """A predictor and what must be known about it. A pytree; `predict` holds weights.

    Args:
        predict: `(x [B, *D], t [B], cond, **taps) -> prediction [B, *D]`, or a pair
            (prediction, extra) whose second part is handed to the sampler, or a triple
            (prediction, extra or None, record) if a change asks for a record. Wrap
            weights as `jax.tree_util.Partial(function, params)` so that they are
            traced.
        kind: what it predicts, one of `paths.KINDS`.
        path: the noise path it was trained on.
        depth: number of blocks that can be dropped through `keep_blocks`; 0 if none.
        flops: FLOPs of one forward pass per sample; None if unknown.
        block_flops: FLOPs of one block per sample.
        batch_time: whether a scalar time is widened to [B] before the call.
        tokens: (rows, columns) of its tokens, for changes that look at neighbours; None
            if unknown, then a square is assumed.
        calls: network evaluations that one prediction counts as.

    Raises:
        InputError: if `kind` is unknown, `path` no path or `depth` no number of blocks.
    """

    predict: Callable[..., Any]
    kind: str = "velocity"
    path: Path = paths.Linear()
    depth: int = 0
    flops: float | None = None
    block_flops: float = 0.0
    batch_time: bool = True
    tokens: tuple[int, int] | None = None
    calls: int = 1

    def __post_init__(self):
        paths.check_kind("Network", self.kind)
        if not callable(getattr(self.path, "node", None)) or isinstance(
            self.path, type
        ):
            raise InputError(
                f"Network: need a noise path such as paths.Linear(), got "
                f"path={shown(self.path)}."
            )
        if not isinstance(self.depth, int | np.integer) or self.depth < 0:
            raise InputError(
                f"Network: need an integer depth >= 0, got depth={shown(self.depth)}."
            )
        # As a leaf of the pytree a bare function would be refused by jit; a Partial
        # keeps it in its static half.
        leaves = jax.tree.leaves(self.predict)
        if len(leaves) == 1 and leaves[0] is self.predict and callable(self.predict):
            object.__setattr__(self, "predict", jax.tree_util.Partial(self.predict))
