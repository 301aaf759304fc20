"""From images on devices to the files of a set."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxguide.errors import NonFiniteError
from jaxguide.runtime import shards
from jaxguide.runtime.progress import Progress


class Group(NamedTuple):
    """Images that a device computes together."""

    shard: int
    numbers: np.ndarray  # int32 [at most batch_size]


def make_groups(files: shards.Files, missing: list[int], size: int) -> list[Group]:
    """The images of the missing files. A call takes groups of several files: one that
    began anew with every file would leave devices idle at each end."""
    return [
        Group(shard, np.asarray(span[first : first + size], np.int32))
        for shard in missing
        for span in [files.span(shard)]
        for first in range(0, len(span), size)
    ]


class Writer:
    """Fetches what calls give, and writes every file as soon as it is whole.

    Args:
        folder, files, plan: of the set.
        labels: of all its images, int32 [N].
        size: rows of a group in a call, the last ones perhaps to fill it up.
        progress: counts calls.
    """

    def __init__(
        self,
        folder: Path,
        files: shards.Files,
        plan: dict[str, Any],
        labels: np.ndarray,
        size: int,
        progress: Progress,
    ):
        self._folder, self._files, self._plan = folder, files, plan
        self._labels, self._size, self._progress = labels, size, progress
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []  # of the file in work

    def take(self, item: tuple[list[Group], Any]) -> None:
        """Takes a call's groups, in the order of the set, and its results."""
        groups, running = item
        results = jax.device_get(running)
        places = [(at * self._size, group) for at, group in enumerate(groups)]
        for shard, found in itertools.groupby(places, lambda place: place[1].shard):
            rows, numbers = [], []
            for first, group in found:
                rows.append(first + np.arange(len(group.numbers)))
                numbers.append(group.numbers)
            index = np.concatenate(rows)
            part = [each[index] for each in results]
            self._add(shard, np.concatenate(numbers), *part)
        self._progress.step()

    def _add(
        self,
        shard: int,
        numbers: np.ndarray,
        images: np.ndarray,
        nfe: np.ndarray,
        finite: np.ndarray,
    ) -> None:
        """Some images of a file; writes it if they are the last ones."""
        if not finite.all():
            broken = numbers[~finite]
            label = self._labels[broken[0]]
            raise NonFiniteError(
                f"sample: need finite images, got NaN or infinity in {len(broken)} of "
                f"{len(numbers)}, first in image {broken[0]} of label {label}. Lower "
                "the scales, or use dtype='float32'; nothing of it was written."
            )
        self._parts.append((images, nfe))
        span = self._files.span(shard)
        if numbers[-1] != span[-1]:
            return
        parts, self._parts = self._parts, []
        file = self._folder / self._files.file(shard)
        _write(file, parts, self._labels[span], np.asarray(span))
        shards.write_facts(self._folder, self._files, shard, self._plan)


def _write(
    path: Path,
    parts: list[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """One file of a set."""
    images, nfe = (np.concatenate(each) for each in zip(*parts, strict=True))

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, images=images, labels=labels, numbers=numbers, nfe=nfe)

    shards.write_whole(path, write)
