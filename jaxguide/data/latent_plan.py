"""What a folder of latents holds, as JSON beside it.

plan.json                      what is written here, fixed when encoding begins
moments-00000-of-00313.npz     one shard, written under another name and renamed
moments-00000-of-00313.json    its count, bytes and checksum, written after it
manifest.json                  plan and shards, written when all are there
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

KIND = "jaxguide-latents-1"
MANIFEST, PLAN = "manifest.json", "plan.json"
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

    Raises:
        ValueError: if a choice is unknown or `shard_size` is not positive.
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

    def __post_init__(self):
        for name, known in (("format", tuple(ENDINGS)), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"write_latents: need {name} in {known}, got "
                    f"{name}={getattr(self, name)!r}. Use {known[0]!r}."
                )
        if self.shard_size < 1:
            raise ValueError(
                "write_latents: need shard_size >= 1, got "
                f"shard_size={self.shard_size!r}. 4096 gives files of 134 MB."
            )

    @property
    def sides(self) -> int:
        """Moments per example: 2 with the mirror image."""
        return 2 if self.mirrored else 1

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.count // self.shard_size)

    def span(self, shard: int) -> range:
        """Examples of a file."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.count))

    def file(self, shard: int) -> str:
        """Name of a file."""
        return f"moments-{shard:05d}-of-{self.shards:05d}.{ENDINGS[self.format]}"

    def facts_file(self, shard: int) -> str:
        """Name of the JSON beside a file."""
        return f"{Path(self.file(shard)).stem}.json"


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is there as a whole or not at all."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(part, 0o644)
    os.replace(part, path)


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes the plan, or checks it against the one that is there.

    Raises:
        ValueError: if the folder was begun with another plan.
    """
    wanted = dataclasses.asdict(plan)
    if not (folder / PLAN).is_file():
        write_json(folder / PLAN, {"kind": KIND, **wanted})
        return
    found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name) != value:
            raise ValueError(
                f"write_latents: need the {name} that the folder was begun with, got "
                f"{name}={_short(value)} instead of {_short(found.get(name))} in "
                f"folder={str(folder)!r}. Use another folder, or undo the change."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def shard_facts(path: Path, count: int) -> dict[str, Any]:
    """Name, number of examples, size and checksum of a finished file."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    size = path.stat().st_size
    return {"file": path.name, "count": count, "bytes": size, "crc32": checksum}


def is_whole(folder: Path, plan: Plan, shard: int) -> bool:
    """Whether a file is there as it was written."""
    path, beside = folder / plan.file(shard), folder / plan.facts_file(shard)
    if not (path.is_file() and beside.is_file()):
        return False
    facts = json.loads(beside.read_text(encoding="utf-8"))
    return facts == shard_facts(path, len(plan.span(shard)))


def write_manifest(folder: Path, plan: Plan) -> bool:
    """Writes the manifest if all files are there, whoever wrote them."""
    beside = [folder / plan.facts_file(shard) for shard in range(plan.shards)]
    if not all(path.is_file() for path in beside):
        return False
    shards = [json.loads(path.read_text(encoding="utf-8")) for path in beside]
    content = {"kind": KIND, **dataclasses.asdict(plan), "shards": shards}
    write_json(folder / MANIFEST, content)
    return True


def read_manifest(folder: Path) -> tuple[Plan, list[dict[str, Any]]]:
    """Plan and files of a finished folder.

    Raises:
        ValueError: if the manifest or a file is missing, or a file has another size.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"LatentCache: need a finished folder with {MANIFEST}, got "
            f"path={str(folder)!r}. Write it with python -m jaxguide.data.encode; "
            "stopped runs carry on."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = {}
    if not isinstance(content, dict) or content.pop("kind", None) != KIND:
        raise ValueError(
            f"LatentCache: need a manifest of kind {KIND!r}, got "
            f"path={str(path)!r}. Write it with python -m jaxguide.data.encode."
        )
    shards = content.pop("shards")
    for name in ("shape", "class_names"):
        content[name] = tuple(content[name])
    for facts in shards:
        _check_size(folder / facts["file"], facts["bytes"])
    return Plan(**content), shards


def check_sums(folder: Path, shards: list[dict[str, Any]]) -> None:
    """Reads every file and compares its checksum.

    Raises:
        ValueError: if one differs.
    """
    for facts in shards:
        path = folder / facts["file"]
        if shard_facts(path, facts["count"]) != facts:
            raise _damaged(path, f"crc32 {facts['crc32']}", "another one")


def _check_size(path: Path, wanted: int) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != wanted:
        raise _damaged(path, f"{wanted} bytes", f"bytes={size}")


def _damaged(path: Path, wanted: str, found: str) -> ValueError:
    return ValueError(
        f"LatentCache: need {wanted} in {path.name}, got {found} in "
        f"path={str(path.parent)!r}. Encode again: only damaged files are redone."
    )
