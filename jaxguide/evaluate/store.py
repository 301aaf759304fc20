"""Features of many images on disk: made in parts, carried on after a kill.

A folder of `features-*.npz` (see `runtime.shards`) with the fields that are wanted:
`pool` [n, D], `spatial` [n, S] and `logits` [n, K], float32, in the order of the
images. So neither 50,000 images nor the features of a million are ever in memory; means
and covariances are made file by file, in float64. Every process fills and sums up its
own files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide import __version__
from jaxguide.data.pictures import VERSION
from jaxguide.errors import InputError
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.images import Images
from jaxguide.evaluate.statistics import Moments, merge_all
from jaxguide.runtime import shards
from jaxguide.runtime.files import say
from jaxguide.runtime.npz import Npz
from jaxguide.runtime.progress import Progress

KIND = shards.Kind(
    name="jaxguide-feature-set-1",
    stem="features",
    writer="extract",
    reader="Store",
    command="python -m jaxguide.evaluate",
)
FIELDS = ("pool", "spatial", "logits")
SUMMED = ("pool", "spatial")  # those of which mean and covariance are wanted


def plan_of(
    images: Images, network: FeatureNetwork, fields: Sequence[str], shard_size: int
) -> dict[str, Any]:
    """Everything that decides the features, JSON-able."""
    return {
        "images": images.identity,
        "count": len(images),
        "shape": list(images.shape),
        "network": network.fingerprint,
        "made_by": f"jaxguide {__version__}, {VERSION}",
        "fields": list(fields),
        "shard_size": shard_size,
    }


def folder_of(cache: str | Path, plan: dict[str, Any]) -> Path:
    """The folder of a plan: another plan, another folder."""
    # Named by its content, so that stale features cannot be taken for new ones.
    text = json.dumps(plan, sort_keys=True).encode()
    return Path(cache).expanduser() / hashlib.sha256(text).hexdigest()[:16]


def extract(
    images: Images,
    network: FeatureNetwork,
    cache: str | Path,
    *,
    fields: Sequence[str] = ("pool",),
    share: tuple[int, int] = (0, 1),
    shard_size: int = 1000,
    title: str = "features",
) -> Path:
    """Writes the features and moments of this process's files that are not there yet.

    Args:
        images: N images.
        network: which takes them.
        cache: folder of all stores; each has a folder of its own in it.
        fields: of `FIELDS`.
        share: `(index, count)` of the process: every `count`-th file from `index` on.
        shard_size: images per file; so many are in memory.
        title: of the progress line.

    Returns:
        The folder; open it with `Store` when all processes are through.

    Raises:
        InputError: if the network has no such field.
    """
    plan = plan_of(images, network, fields, shard_size)
    folder = folder_of(cache, plan)
    files = shards.Files(KIND, len(images), shard_size)
    shards.write_plan(folder, KIND, plan)
    missing = shards.my_shards(folder, files, share, plan)
    if missing:
        progress = Progress(title, len(missing))
        for shard in missing:
            span = files.span(shard)
            features = network.extract(images.read(span.start, span.stop))
            _write(folder / files.file(shard), features, fields)
            shards.write_facts(folder, files, shard, plan)
            progress.step()
        progress.close()
    for field in SUMMED:
        if field in fields:
            _part(folder, files, field, share)
    shards.write_manifest(folder, files, plan)
    return folder


def _write(path: Path, features: Any, fields: Sequence[str]) -> None:
    arrays = {field: getattr(features, field) for field in fields}
    for field, array in arrays.items():
        if array is None:
            raise InputError(
                f"extract: need a network with the features {field!r}, got one "
                "without. Inception has all."
            )

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    shards.write_whole(path, write)


def _part(
    folder: Path, files: shards.Files, field: str, share: tuple[int, int]
) -> Moments:
    """Moments of one process's files, from the disk or made and kept there."""
    # The name holds the share: another number of processes sums up other files, and
    # must not read these.
    index, count = share
    path = folder / f"moments-{field}-{index}-of-{count}.npz"
    mine = range(index, files.number, count)
    images = sum(len(files.span(shard)) for shard in mine)
    if path.is_file():
        try:
            return Moments.load(path, count=images)
        except InputError as error:
            say(f"extract: {error} It is made again.")
    parts = (Moments.of(_map(folder, files, i, field)) for i in mine)
    moments = merge_all(parts) if mine else Moments.empty(0)
    moments.save(path)
    return moments


def _map(folder: Path, files: shards.Files, shard: int, field: str) -> np.ndarray:
    """The rows of a file, read where they lie."""
    file = Npz(folder / files.file(shard), "Store")
    rows, count = file.map(field), len(files.span(shard))
    if rows.ndim != 2 or len(rows) != count:
        raise file.refused(f"{field} [{count}, D]", repr(rows.shape))
    return rows


class Store:
    """The features of one set of images, all there.

    Args:
        folder: as `extract` returned it.
        processes: how many have filled it.

    Raises:
        InputError: if a file is missing.
    """

    def __init__(self, folder: Path, processes: int = 1):
        self._folder, self._processes = folder, processes
        self._plan, _ = shards.read_manifest(folder, KIND)
        size = self._plan["shard_size"]
        self._files = shards.Files(KIND, self._plan["count"], size)

    def __len__(self) -> int:
        return self._plan["count"]

    @property
    def fields(self) -> tuple[str, ...]:
        """Which features there are."""
        return tuple(self._plan["fields"])

    def blocks(self, field: str) -> Iterator[np.ndarray]:
        """The rows of one file after another, read where they lie."""
        for shard in range(self._files.number):
            yield _map(self._folder, self._files, shard, field)

    def all(self, field: str) -> np.ndarray:
        """All rows [N, D], float32, in memory."""
        return np.concatenate(list(self.blocks(field)))

    def moments(self, field: str) -> Moments:
        """Mean and covariance of all rows, merged over the processes."""
        # Processes beyond the number of files have no part to merge.
        count = min(self._processes, self._files.number)
        return merge_all(
            _part(self._folder, self._files, field, (index, self._processes))
            for index in range(count)
        )
