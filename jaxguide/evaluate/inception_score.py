"""Inception Score: how sure a classifier is of each image, and how varied of all.

    exp E_x KL(p(y | x) || p(y))          with p(y) = E_x p(y | x), within each part

The score grows with the number of images in a part, so the parts belong to the
protocol: ADM takes consecutive parts of 5,000 images, torch-fidelity ten parts of
shuffled ones. Both leave out the bias of the last layer, so that `logits` are those
without it.

Source: Salimans et al. 2016, arXiv:1606.03498, Sec. 4; ADM's evaluator.py and
    torch-fidelity 0.4.0, metric_isc.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxguide.errors import InputError


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the parts."""

    mean: float
    std: float


def inception_score(logits: np.ndarray, bounds: Sequence[int]) -> InceptionScore:
    """Inception Score of images in the order given.

    Args:
        logits: [N, K], before the softmax, of one image per row.
        bounds: where parts begin and end, from 0 to N; see `parts_of`, `equal_parts`.

    Raises:
        InputError: if a part is empty.

    Source: Salimans et al. 2016, arXiv:1606.03498, Sec. 4.
    """
    scores = []
    for start, stop in itertools.pairwise(bounds):
        if stop <= start:
            raise InputError(
                "inception_score: need an image in every part, got "
                f"bounds={list(bounds)!r}. Use more images."
            )
        scores.append(_score(np.asarray(logits[start:stop], np.float64)))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score(logits: np.ndarray) -> float:
    """Of one part."""
    logs = logits - logits.max(axis=1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    shares = np.exp(logs)
    whole = shares.mean(axis=0)
    # A class that no image can be adds 0.
    reached = whole > 0
    gaps = logs[:, reached] - np.log(whole[reached])
    return float(np.exp((shares[:, reached] * gaps).sum(axis=1).mean()))


def parts_of(count: int, size: int) -> list[int]:
    """Bounds of parts of `size` images; the last may be smaller.

    >>> parts_of(12, 5)
    [0, 5, 10, 12]
    """
    return [*range(0, count, size), count]


def equal_parts(count: int, parts: int) -> list[int]:
    """Bounds of `parts` parts of as equal size as can be.

    >>> equal_parts(11, 3)
    [0, 3, 7, 11]
    """
    return [part * count // parts for part in range(parts + 1)]


def shuffled(logits: np.ndarray, seed: int) -> np.ndarray:
    """The rows in the order that torch-fidelity gives them."""
    return logits[np.random.RandomState(seed).permutation(len(logits))]
