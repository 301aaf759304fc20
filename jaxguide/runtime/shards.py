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
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError
from jaxguide.runtime.files import (
    check_writable,
    read_json,
    replacing,
    say,
    write_json,
)

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


def my_shards(
    folder: Path, files: Files, share: tuple[int, int], plan: dict[str, Any]
) -> list[int]:
    """The shards that a process has to write and that are not there yet.

    Args:
        folder: where they are.
        files: all of them.
        share: `(index, count)` of the process: every `count`-th from `index` on.
        plan: that they are made by.

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
    return [shard for shard in mine if not is_whole(folder, files, shard, plan)]


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a part beside `path`; see `files.replacing`."""
    with replacing(path) as part:
        write(part)


def write_plan(folder: Path, kind: Kind, plan: dict[str, Any]) -> None:
    """Writes the plan, or checks it against the one that is there.

    What killed processes left is removed. A plan by which nothing was finished, or
    which cannot be read, is written anew.

    Raises:
        InputError: if the folder was begun with another plan.
        UnwritableError: if the folder cannot be written.
    """
    check_writable(folder, kind.writer)
    wanted = json.loads(json.dumps({"kind": kind.name, **plan}))
    existing = read_json(folder / PLAN)
    if existing is None and (folder / PLAN).exists():
        say(f"{kind.writer}: {folder / PLAN} cannot be read and is made again")
        _forget_others(folder, kind, plan)
    elif existing is not None and any(folder.glob(f"{kind.stem}-*.json")):
        _compare(folder, kind, existing, wanted)
    if existing != wanted:
        write_json(folder / PLAN, wanted, kind.writer)


def _forget_others(folder: Path, kind: Kind, plan: dict[str, Any]) -> None:
    """Takes shards that do not say that this plan made them for not written."""
    for facts in sorted(folder.glob(f"{kind.stem}-*.json")):
        if (read_json(facts) or {}).get("plan") != _digest(plan):
            facts.unlink(missing_ok=True)


def _compare(
    folder: Path, kind: Kind, existing: dict[str, Any], wanted: dict[str, Any]
) -> None:
    for name, value in wanted.items():
        if name not in existing or existing[name] != value:
            was = _short(existing[name]) if name in existing else "nothing noted"
            raise InputError(
                f"{kind.writer}: need the {name} that the folder was begun with, got "
                f"{name}={_short(value)} instead of {was} in "
                f"folder={str(folder)!r}. Use another folder, or undo the change."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _digest(plan: dict[str, Any]) -> str:
    text = json.dumps(plan, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_facts(folder: Path, files: Files, shard: int, plan: dict[str, Any]) -> None:
    """Notes size and checksum of a file that has just been written, and its plan."""
    facts = shard_facts(folder / files.file(shard), len(files.span(shard)))
    facts["plan"] = _digest(plan)
    write_json(folder / files.facts_file(shard), facts, files.kind.writer)


def _is_by(facts: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether a shard was made by the plan; older versions did not note it."""
    return facts.get("plan", _digest(plan)) == _digest(plan)


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


def is_whole(folder: Path, files: Files, shard: int, plan: dict[str, Any]) -> bool:
    """Whether a file is there as it was written; says so if it was and no more is."""
    # By checksum: a full disk or a broken copy leaves files that exist and are wrong.
    path, beside = folder / files.file(shard), folder / files.facts_file(shard)
    if not (path.is_file() and beside.is_file()):
        return False
    known, facts = read_json(beside) or {}, shard_facts(path, len(files.span(shard)))
    if {**known, **facts} == known and _is_by(known, plan):
        return True
    say(f"{files.kind.writer}: {path} is not as it was written and is made again")
    return False


def write_manifest(folder: Path, files: Files, plan: dict[str, Any]) -> bool:
    """Writes the manifest if all files are there, of whichever process."""
    # Every process tries, and the last one to end succeeds: so they need no connection.
    # Two that end together write the same file, each whole.
    beside = (folder / files.facts_file(shard) for shard in range(files.number))
    shards = [read_json(path) for path in beside]
    if not all(facts is not None and _is_by(facts, plan) for facts in shards):
        return False
    kind = files.kind
    content = {"kind": kind.name, **plan, "shards": shards}
    write_json(folder / MANIFEST, content, kind.writer)
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
    content = read_json(path) or {}
    shards = content.pop("shards", None)
    if content.pop("kind", None) != kind.name or not _are_facts(shards):
        raise InputError(
            f"{kind.reader}: need a manifest of kind {kind.name!r}, got "
            f"path={str(path)!r}. Write it with {kind.command}."
        )
    for facts in shards:
        _check_size(folder / facts["file"], facts["bytes"], kind)
    return content, shards


def _are_facts(shards: Any) -> bool:
    """Whether the value is what `shard_facts` says of several files of one folder."""
    types = {"file": str, "count": int, "bytes": int, "crc32": int}
    return isinstance(shards, list) and all(
        isinstance(facts, dict)
        and all(isinstance(facts.get(name), type) for name, type in types.items())
        and Path(facts["file"]).name == facts["file"]
        for facts in shards
    )


def check_sums(folder: Path, shards: list[dict[str, Any]], kind: Kind) -> None:
    """Reads every file and compares its checksum.

    Raises:
        InputError: if one differs.
    """
    for facts in shards:
        path = folder / facts["file"]
        if {**facts, **shard_facts(path, facts["count"])} != facts:
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
