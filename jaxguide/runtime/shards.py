"""A folder that a long run fills file by file, and a killed run carries on with.

plan.json                      what is written here, fixed when the run begins
NAME-00000-of-00313.npz        one shard, written under another name and renamed
NAME-00000-of-00313.json       its count, bytes and checksum, written after it
manifest.json                  plan and shards, written when all are there

Processes share the files out by number and need no connection to each other: whichever
ends last writes the manifest.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError

MANIFEST, PLAN = "manifest.json", "plan.json"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What such folders hold.

    Args:
        name: kind and version, kept in the files.
        stem: beginning of the names of the shards.
        writer, reader: functions that errors name.
        command: that writes such a folder, and carries on with it.
    """

    name: str
    stem: str
    writer: str
    reader: str
    command: str


@dataclasses.dataclass(frozen=True)
class Files:
    """The shards of one folder.

    Args:
        kind: of the folder.
        count: examples in all.
        size: examples per shard, the last one perhaps fewer.
        ending: of the file names.

    Raises:
        InputError: if `size` is not positive.
    """

    kind: Kind
    count: int
    size: int
    ending: str = "npz"

    def __post_init__(self):
        check_size(self.kind, self.size)

    @property
    def number(self) -> int:
        """Number of files."""
        return -(-self.count // self.size)

    def span(self, shard: int) -> range:
        """Examples of a file."""
        start = shard * self.size
        return range(start, min(start + self.size, self.count))

    def file(self, shard: int) -> str:
        """Name of a file."""
        return f"{self.kind.stem}-{shard:05d}-of-{self.number:05d}.{self.ending}"

    def facts_file(self, shard: int) -> str:
        """Name of the JSON beside a file."""
        return f"{Path(self.file(shard)).stem}.json"


def check_size(kind: Kind, size: int) -> None:
    """Raises InputError unless `size` examples per file are some."""
    if size < 1:
        raise InputError(
            f"{kind.writer}: need shard_size >= 1, got shard_size={size!r}. "
            "1000 will do."
        )


def my_shards(folder: Path, files: Files, share: tuple[int, int]) -> list[int]:
    """The shards that a process has to write and that are not there yet.

    Args:
        folder: where they are.
        files: all of them.
        share: `(index, count)` of the process: every `count`-th from `index` on.

    Raises:
        InputError: if `index` is not in 0 .. count - 1.
    """
    index, count = share
    if not 0 <= index < count:
        raise InputError(
            f"{files.kind.writer}: need 0 <= index < count, got share={share!r}. "
            "Number the hosts from 0."
        )
    mine = range(index, files.number, count)
    return [shard for shard in mine if not is_whole(folder, files, shard)]


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


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a file beside `path`, then puts it in its place."""
    # Renaming is atomic within a file system, so a reader sees no half-written file.
    # Without the sync a crash of the host may leave the new name with no content.
    part = path.with_name(f".{path.name}.part")
    write(part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def write_plan(folder: Path, kind: Kind, plan: dict[str, Any]) -> None:
    """Writes the plan, or checks it against the one that is there.

    Raises:
        InputError: if the folder was begun with another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PLAN).is_file():
        write_json(folder / PLAN, {"kind": kind.name, **plan})
        return
    existing = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    for name, value in json.loads(json.dumps(plan)).items():
        if existing.get(name) != value:
            raise InputError(
                f"{kind.writer}: need the {name} that the folder was begun with, got "
                f"{name}={_short(value)} instead of {_short(existing.get(name))} in "
                f"folder={str(folder)!r}. Use another folder, or undo the change."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def write_facts(folder: Path, files: Files, shard: int) -> None:
    """Notes size and checksum of a file that has just been written."""
    facts = shard_facts(folder / files.file(shard), len(files.span(shard)))
    write_json(folder / files.facts_file(shard), facts)


def shard_facts(path: Path, count: int) -> dict[str, Any]:
    """Name, number of examples, size and checksum of a finished file."""
    size = path.stat().st_size
    return {"file": path.name, "count": count, "bytes": size, "crc32": crc32(path)}


def crc32(path: Path) -> int:
    """Checksum of a file."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def is_whole(folder: Path, files: Files, shard: int) -> bool:
    """Whether a file is there as it was written."""
    # By checksum: a full disk or a broken copy leaves files that exist and are wrong.
    path, beside = folder / files.file(shard), folder / files.facts_file(shard)
    if not (path.is_file() and beside.is_file()):
        return False
    facts = json.loads(beside.read_text(encoding="utf-8"))
    return facts == shard_facts(path, len(files.span(shard)))


def write_manifest(folder: Path, files: Files, plan: dict[str, Any]) -> bool:
    """Writes the manifest if all files are there, of whichever process."""
    # Every process tries, and the last one to end succeeds: so they need no connection.
    # Two that end together write the same file, each whole.
    beside = [folder / files.facts_file(shard) for shard in range(files.number)]
    if not all(path.is_file() for path in beside):
        return False
    shards = [json.loads(path.read_text(encoding="utf-8")) for path in beside]
    write_json(folder / MANIFEST, {"kind": files.kind.name, **plan, "shards": shards})
    return True


def read_manifest(
    folder: Path, kind: Kind
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Plan and files of a finished folder.

    Raises:
        InputError: if the manifest or a file is missing, or a file has another size.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{kind.reader}: need a finished folder with {MANIFEST}, got "
            f"path={str(folder)!r}. Write it with {kind.command}; "
            "stopped runs carry on."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = {}
    if not isinstance(content, dict) or content.pop("kind", None) != kind.name:
        raise InputError(
            f"{kind.reader}: need a manifest of kind {kind.name!r}, got "
            f"path={str(path)!r}. Write it with {kind.command}."
        )
    shards = content.pop("shards")
    for facts in shards:
        _check_size(folder / facts["file"], facts["bytes"], kind)
    return content, shards


def check_sums(folder: Path, shards: list[dict[str, Any]], kind: Kind) -> None:
    """Reads every file and compares its checksum.

    Raises:
        InputError: if one differs.
    """
    for facts in shards:
        path = folder / facts["file"]
        if shard_facts(path, facts["count"]) != facts:
            raise _damaged(path, f"crc32 {facts['crc32']}", "another one", kind)


def _check_size(path: Path, wanted: int, kind: Kind) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if size != wanted:
        raise _damaged(path, f"{wanted} bytes", f"bytes={size}", kind)


def _damaged(path: Path, wanted: str, actual: str, kind: Kind) -> InputError:
    return InputError(
        f"{kind.reader}: need {wanted} in {path.name}, got {actual} in "
        f"path={str(path.parent)!r}. Run {kind.command} again: only damaged files are "
        "redone."
    )
