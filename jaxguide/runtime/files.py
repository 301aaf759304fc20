"""Files that are there as a whole or not at all.

A file is written beside its place, under a hidden name that says which process writes
it, and renamed when it is finished. A killed process leaves such a part behind; the
next one that writes there removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxguide.errors import UnwritableError
from jaxguide.runtime import exits

# A part of another host, whose processes cannot be seen, is old after so many seconds.
OLD = 24 * 3600
_PART = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\d+\.part")
# The names that versions before 0.2 gave to unfinished files.
_FORMER = re.compile(r"\.[\w-]+\.((npz|array_record)\.part|json\w{8})")


def _host() -> str:
    """Where numbers of processes mean what they mean here: host, boot, container."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


_HOST = _host()
_numbers = itertools.count()
_mine: set[str] = set()  # parts that this process is writing


@contextlib.contextmanager
def replacing(path: str | Path, owner: str = "files") -> Iterator[Path]:
    """A part to write to, which takes the place of `path` when the block ends.

        with replacing(path) as part:
            part.write_bytes(content)

    Neither a reader nor a killed run sees half a file, and an error leaves the old one
    as it was. The file's mode is that of any new file of the user (umask), whatever
    mode the block gave to the part. The folder is made if missing.

    Args:
        path: of the file.
        owner: who writes, for the error.

    Raises:
        UnwritableError: if the folder cannot be written or the disk is full, also where
            a library hides the system's error in one of its own.
    """
    path = Path(path)
    try:
        part, mode = _begun(path)
    except OSError as error:
        raise unwritable(owner, path, error) from error
    try:
        yield part
        os.chmod(part, mode)
        _flush(part)
        os.replace(part, path)
    except Exception as error:
        if exits.why_unwritable(error) is None or isinstance(error, UnwritableError):
            raise
        raise unwritable(owner, path, error) from error
    finally:
        _mine.discard(part.name)
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _begun(path: Path) -> tuple[Path, int]:
    """An empty part beside `path`, and the mode that new files have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name}.{_HOST}.{os.getpid()}.{next(_numbers)}.part"
    part = path.with_name(name)
    _mine.add(name)
    # Made here, so that the system applies the umask, which cannot be read safely.
    part.touch()
    return part, part.stat().st_mode & 0o777


def _flush(part: Path) -> None:
    # Renaming is atomic within a file system, so a reader sees no half-written file.
    # Without the sync a crash of the host may leave the new name with no content.
    with part.open("rb") as file:
        os.fsync(file.fileno())


def unwritable(
    owner: str, path: str | Path, error: BaseException, name: str = "path"
) -> UnwritableError:
    """The error for a file or folder that the system does not let us write."""
    reason = exits.why_unwritable(error) or getattr(error, "strerror", None)
    return UnwritableError(
        f"{owner}: need a folder that can be written, got {name}={str(path)!r}: "
        f"{reason or error}. Make room or choose another folder."
    )


def check_writable(
    folder: str | Path, owner: str = "files", name: str = "path"
) -> None:
    """Tries whether files can be made in a folder, or where it will be; leaves none.

    For before long work. What killed processes left in the folder goes.

    Args:
        folder: which may be missing.
        owner: who asks, for the error.
        name: of the argument, for the error.

    Raises:
        UnwritableError: if that is not possible.
    """
    try:
        place = Path(folder).expanduser().absolute()
        while not os.path.lexists(place):
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody
        raise unwritable(owner, folder, error, name) from error
    remove_stale(Path(folder).expanduser())


def remove_stale(folder: str | Path) -> None:
    """Removes the parts in a folder that no living process writes."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.name.startswith(".") and _is_stale(entry):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    match = _PART.fullmatch(entry.name)
    if match is None and not _FORMER.fullmatch(entry.name):
        return False
    if match is None or match["host"] != _HOST:
        with contextlib.suppress(OSError):
            return time.time() - entry.stat().st_mtime > OLD
        return False
    pid = int(match["pid"])
    # In containers every process may have the same number, a dead one too.
    if pid == os.getpid():
        return entry.name not in _mine
    return not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user; or no number of a process
        pass
    return True


def write_json(path: str | Path, value: Any, owner: str = "files") -> None:
    """Writes strict JSON as a whole; see `replacing`.

    Raises:
        UnwritableError: as `replacing`.
        ValueError: for a number that is not finite: JSON has none.
    """
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with replacing(path, owner) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none, or no whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def stamp(files: Iterable[str | Path], root: str | Path | None = None) -> str:
    """A text that changes when a file does: names, sizes and times, not contents.

    Args:
        files: that exist.
        root: names are taken relative to it; None takes whole paths.
    """
    # Not of the contents, which would be read twice.
    total, count = hashlib.sha256(), 0
    start = os.path.join(root, "") if root else ""
    for file in files:
        facts = os.stat(file)
        name = os.fspath(file)
        name = name.removeprefix(start) if root else os.path.realpath(name)
        total.update(os.fsencode(f"{name}\0{facts.st_size} {facts.st_mtime_ns}\n"))
        count += 1
    return f"{count} files {total.hexdigest()}"


def say(line: str) -> None:
    """One line for people, beside the results."""
    print(line, file=sys.stderr, flush=True)
