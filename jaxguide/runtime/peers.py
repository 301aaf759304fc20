"""The processes of one run learn at once when one of them is gone.

Every process keeps a connection to process 0. One that breaks, or is silent for
`SILENCE` seconds, means that a process is gone: the others print one line and leave
with the exit code `UNFINISHED`, even out of a computation that waits for the one that
is gone.

JAX has a watch of its own, which takes 100 seconds and ends a process from C++ with
several lines. It stays, behind this one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import NoReturn

from jaxguide.runtime import exits

BEAT, SILENCE = 5.0, 40.0


class Link:
    """One connection: lines of words, both ways."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lines = connection.makefile("r", encoding="utf-8", errors="replace")
        self._writing = threading.Lock()

    def send(self, *words: object) -> None:
        """Sends a line; whether somebody listens is for `read` to find out."""
        with contextlib.suppress(OSError), self._writing:
            self._connection.sendall((" ".join(map(str, words)) + "\n").encode())

    def read(self, patience: float) -> list[str]:
        """The next words that are no heartbeat; none if the other one is gone."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(max(patience, 0.01))
            while (words := self._lines.readline().split()) == ["beat"]:
                pass
            return words
        return []


class Peers:
    """The other processes of a run, watched until `close` or `fail`.

    Args:
        index: of this process.
        links: to process 0; in process 0 to every other one, by number.
    """

    def __init__(self, index: int, links: dict[int, Link]):
        self._index, self._links = index, links
        self._done = {other: threading.Event() for other in links}
        self._ended = threading.Event()
        self._leaving = threading.Lock()
        for other in links:
            threading.Thread(target=self._watch, args=(other,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Waits until all processes have come here, however long their work is."""
        if self._index:
            self._tell("done")
        for done in self._done.values():
            done.wait()
        self._ended.set()
        if not self._index:
            self._tell("done")

    def fail(self, code: int) -> None:
        """Tells the others that this process leaves by an error, with an exit code."""
        self._leaving.acquire()  # what others say about it no longer matters
        self._tell("failed", self._index, code)

    def _tell(self, *words: object) -> None:
        for link in self._links.values():
            link.send(*words)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._tell("beat")

    def _watch(self, other: int) -> None:
        """Listens to one process until the run is over."""
        while not (self._index and self._done[other].is_set()):
            words = self._links[other].read(SILENCE)
            if self._ended.is_set():
                return
            match words:
                case ["done"]:
                    self._done[other].set()
                case ["failed", who, code]:
                    self._leave(int(who), int(code))
                case ["gone", who]:
                    self._leave(int(who), exits.UNFINISHED)
                case _:
                    self._leave(other, exits.UNFINISHED)

    def _leave(self, who: int, code: int) -> NoReturn:
        """Ends this process, whatever it does, because another one has ended."""
        self._leaving.acquire()  # and never released: one line, one exit
        if code == exits.UNFINISHED:
            self._tell("gone", who)
            line = f"process {who} is gone; the same command carries on"
        else:
            self._tell("failed", who, code)
            line = f"process {who} has left with exit code {code}; see what it printed"
        os.write(2, f"hosts: {line}\n".encode())
        os._exit(code)
