"""Gaussian noise of single examples, from one number each."""

from __future__ import annotations

import numpy as np


def normal(draws: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise; that of an example depends on its number alone.

    Args:
        draws: uint64 [n].
        shape: of one example.

    Returns:
        float32 [n, *shape].
    """
    # A generator per example: with one for the batch, the noise of an example would
    # depend on its neighbours, and so on how a batch is cut between hosts.
    noise = np.empty((len(draws), *shape), np.float32)
    for one, draw in zip(noise, draws, strict=True):
        generator = np.random.Generator(np.random.Philox(key=draw))
        generator.standard_normal(out=one, dtype=np.float32)
    return noise
