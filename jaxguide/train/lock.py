"""One run per folder: a file that says who is training there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError, UnwritableError

NAME = "run.lock"
# Seconds between signs of life, and how long another host's are waited for. A file
# system over a network may show a change a minute late.
BEAT, PATIENCE = 15.0, 100.0


class Lock:
    """While this is open, no other run enters the folder.

    The file says host, process and its start. On one host the system's lock on the
    file is what counts: it ends with its process, however that ends. Between hosts it
    may not exist, so the holder touches the file every `BEAT` seconds; a file that
    nobody touches for `PATIENCE` seconds is left over, and is taken over with a line.

    Args:
        folder: of the run; made if missing.

    Raises:
        InputError: if another run is there.
        UnwritableError: if the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / NAME
        self._over = threading.Event()

    def __enter__(self) -> Lock:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file, locked = self._opened()
        except OSError as error:
            raise UnwritableError(
                "run: need a folder that can be written, got "
                f"folder={str(self._folder)!r}: {error.strerror}. Make room or choose "
                "another folder."
            ) from error
        try:
            self._check_holder(_read(self._file), locked)
            _write(self._file, _me())
        except BaseException:
            os.close(self._file)
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # Removed while it is held: who waits for it notices, see `_opened`.
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._file)

    def _opened(self) -> tuple[int, bool]:
        """The file, and whether this file system could lock it."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read(file)
                os.close(file)
                raise self._taken(holder) from None
            except OSError:  # this file system has none: what the file says counts
                return file, False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    return file, True
            os.close(file)  # another run has just removed it

    def _check_holder(self, holder: dict[str, Any], locked: bool) -> None:
        """Raises InputError if the file is of a run that goes on."""
        if not holder:
            return
        if holder.get("host") == socket.gethostname():
            alive = not locked and _is_running(holder.get("pid"), holder.get("start"))
        else:
            alive = self._shows_life(holder)
        if alive:
            raise self._taken(holder)
        print(
            f"run: takes over {self._path}, which {_named(holder)} has left", flush=True
        )

    def _shows_life(self, holder: dict[str, Any]) -> bool:
        """Whether somebody touches the file."""
        before, end = self._path.stat().st_mtime_ns, time.monotonic() + PATIENCE
        print(
            f"run: {self._path} is of {_named(holder)}; waiting for a sign of life, "
            f"up to {PATIENCE:g} s",
            flush=True,
        )
        while time.monotonic() < end:
            time.sleep(min(1.0, PATIENCE / 10))
            if self._path.stat().st_mtime_ns != before:
                return True
        return False

    def _taken(self, holder: dict[str, Any]) -> InputError:
        return InputError(
            "run: need a folder that no other run uses, got "
            f"folder={str(self._folder)!r}, where {_named(holder)} is training. Wait "
            "for its end or use another folder; if it is gone for good, remove "
            f"{self._path}."
        )

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._file)


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "start": _start_of(pid)}


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"


def _is_running(pid: Any, start: Any) -> bool:
    """Whether a process of this host is the one that started then."""
    return start is not None and _start_of(pid) == start


def _start_of(pid: Any) -> str | None:
    """When a process of this host has started, so that numbers used again differ."""
    try:
        stat = Path(f"/proc/{int(pid)}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError, TypeError):
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"


def _read(file: int) -> dict[str, Any]:
    """What the file says; nothing if it is empty, or a kill has cut it."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: int, holder: dict[str, Any]) -> None:
    """In one call, so that a reader sees all or nothing."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"{json.dumps(holder)}\n".encode(), 0)
