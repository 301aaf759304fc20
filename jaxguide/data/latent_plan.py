"""What a folder of latents holds; see `jaxguide.runtime.shards` for its files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError
from jaxguide.runtime import shards as sharded

KIND = sharded.Kind(
    name="jaxguide-latents-1",
    stem="moments",
    writer="write_latents",
    reader="LatentCache",
    command="python -m jaxguide.data.encode",
)
ENDINGS = {"npz": "npz", "array_record": "array_record"}
DTYPES = ("float16", "float32")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that has to be equal for two runs to fill one folder.

    Args:
        encoder: its name.
        scale, shift: x0 = (latent - shift) * scale.
        shape: of the moments of one example, [h, w, 2c].
        count: examples.
        class_names: one name per class.
        format: one of `ENDINGS`.
        dtype: of the moments, one of `DTYPES`.
        mirrored: whether the moments of the mirror images are there too.
        shard_size: examples per file.
        note: free JSON-able facts.
        images: what `identity` says of the images; "" in folders of older versions.
        encoder_digest: of the encoder, likewise.

    Raises:
        InputError: if a choice is unknown or `shard_size` is not positive.
    """

    encoder: str
    scale: float
    shift: float
    shape: tuple[int, int, int]
    count: int
    class_names: tuple[str, ...]
    format: str = "npz"
    dtype: str = "float16"
    mirrored: bool = True
    shard_size: int = 4096
    note: dict = dataclasses.field(default_factory=dict)
    images: str = ""
    encoder_digest: str = ""

    def __post_init__(self):
        for name, known in (("format", tuple(ENDINGS)), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"write_latents: need {name} in {known}, got "
                    f"{name}={getattr(self, name)!r}. Use {known[0]!r}."
                )
        sharded.check_size(KIND, self.shard_size)

    @property
    def sides(self) -> int:
        """Moments per example: 2 with the mirror image."""
        return 2 if self.mirrored else 1

    @property
    def files(self) -> sharded.Files:
        """The shards."""
        ending = ENDINGS[self.format]
        return sharded.Files(KIND, self.count, self.shard_size, ending)


def read_plan(folder: Path) -> tuple[Plan, list[dict[str, Any]]]:
    """Plan and files of a finished folder.

    Raises:
        InputError: if the manifest or a file is missing, or a file has another size.
    """
    content, shards = sharded.read_manifest(folder, KIND)
    try:
        return Plan(**{**content, **_tuples(content)}), shards
    except (TypeError, KeyError) as error:
        raise InputError(
            f"LatentCache: need a manifest of {KIND.writer}, got "
            f"path={str(folder / sharded.MANIFEST)!r}: {error}. Run {KIND.command} "
            "again."
        ) from error


def _tuples(content: dict[str, Any]) -> dict[str, tuple]:
    """What JSON has made lists of, checked."""
    shape, names = tuple(content["shape"]), tuple(content["class_names"])
    sizes, affine = (*shape, content["count"]), (content["scale"], content["shift"])
    if len(shape) != 3 or not all(isinstance(size, int) for size in sizes):
        raise TypeError(f"shape={shape!r}, count={content['count']!r}")
    if not all(map(math.isfinite, affine)):
        raise TypeError(f"scale, shift={affine!r}")
    return {"shape": shape, "class_names": names}
