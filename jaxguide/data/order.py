"""The order in which examples are seen, and what is random about each of them.

Both are pure functions of the seed and the position, `step * batch_size + i`: a run
that is stopped and resumed at step 700 sees exactly the examples that an unbroken run
sees from step 700 on, on one host or on many, and nothing about the data has to be
stored in a checkpoint.
"""

from __future__ import annotations

import functools

import numpy as np

from jaxguide.data.source import Batch, Source
from jaxguide.errors import InputError

_DRAWS = 1  # second part of the seed of the draws
_WORDS = 4  # numbers that one count of Philox gives


def indices(size: int, step: int, *, batch_size: int, seed: int) -> np.ndarray:
    """Examples of one training step: shuffled anew in every epoch, none left out.

    Args:
        size: number of examples N.
        step: training step, counted from 0.
        batch_size: examples per step; may exceed N.
        seed: of the shuffle.

    Returns:
        int64 [batch_size], a pure function of the arguments.

    >>> first_epoch = [indices(6, step, batch_size=3, seed=0) for step in (0, 1)]
    >>> sorted(np.concatenate(first_epoch).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    return _picked(size, step * batch_size, batch_size, seed)


def draws(start: int, count: int, *, seed: int) -> np.ndarray:
    """One uniform 64-bit number for each of the positions from `start` on.

    Args:
        start: first position, `step * batch_size` of a whole batch.
        count: how many.
        seed: of the stream.

    Returns:
        uint64 [count]; the number at a position does not depend on `start`.

    >>> bool(draws(0, 9, seed=3)[5] == draws(5, 1, seed=3)[0])
    True
    """
    # Philox is counter-based: it starts at any position without making those before, so
    # a host that reads the last part of a batch draws only its own numbers.
    key = np.random.SeedSequence([seed, _DRAWS]).generate_state(2, np.uint64)
    skipped = start % _WORDS
    stream = np.random.Philox(key=key, counter=start // _WORDS)
    return np.asarray(stream.random_raw(skipped + count))[skipped:]


def batch(
    source: Source,
    step: int,
    *,
    batch_size: int,
    seed: int,
    flip: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Batch:
    """The examples of one training step, or one host's share of them.

    Args:
        source: where they come from.
        step: training step, counted from 0.
        batch_size: number of examples B of all hosts together.
        seed: of the shuffle and of all that is random about an example.
        flip: mirror each example left to right with probability one half.
        share: `(index, count)`: only part `index` of `count` equal, consecutive parts
            is read. The parts in their order are the whole batch, bit for bit.

    Returns:
        `(x0, label)`: float32 [B / count, H, W, C] and int32 [B / count]; a pure
        function of the arguments.

    Raises:
        InputError: if the batch cannot be cut into such parts.
    """
    index, count = share
    if batch_size < 1:
        raise InputError(
            f"batch: need batch_size >= 1, got batch_size={batch_size!r}. 64 will do."
        )
    if not 0 <= index < count or batch_size % count:
        raise InputError(
            "batch: need 0 <= index < count and batch_size a positive multiple of "
            f"count, got batch_size={batch_size!r}, share={share!r}. Use a batch size "
            "that the number of hosts divides."
        )
    part = batch_size // count
    start = step * batch_size + index * part
    picked = _picked(len(source), start, part, seed)
    drawn = draws(start, part, seed=seed)
    # The top bit alone: the whole number goes on as the seed of what a source draws.
    mirrored = (drawn >> np.uint64(63)).astype(bool) & flip
    return source.read(picked, flip=mirrored, draws=drawn)


def _picked(size: int, start: int, count: int, seed: int) -> np.ndarray:
    # A batch may run over the end of an epoch, and a large one over several.
    epoch, offset = np.divmod(start + np.arange(count), size)
    picked = np.empty(count, np.int64)
    for one in np.unique(epoch):
        here = epoch == one
        picked[here] = _permutation(size, seed, int(one))[offset[here]]
    return picked


# Two, for the batch in which one epoch ends and the next begins.
@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)
