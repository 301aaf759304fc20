"""The processes of one run learn at once when one of them is gone.

Every process keeps a connection to process 0. One that breaks, or is silent for
`SILENCE` seconds, means that a process is gone: the others print one line and leave
with the exit code `UNFINISHED`, even out of a computation that waits for the one that
is gone.

JAX has a check of its own, which takes 100 seconds and ends a process from C++ with
several lines. It stays as a second one behind this.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import NoReturn

from jaxguide.runtime import exits

# A process that ends closes its connections, and the others notice at once. A host that
# loses its power or its network closes nothing: only its silence shows that it is gone.
BEAT, SILENCE = 5.0, 40.0
# Characters of a line; nothing that processes say is half as long.
LONGEST = 4096


class Link:
    """One connection: lines of words, both ways."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lines = connection.makefile("r", encoding="utf-8", errors="replace")
        # The thread of the heartbeat and the main thread write on the same connection.
        self._writing = threading.Lock()

    def send(self, *words: object) -> None:
        """Sends a line; a broken connection is noticed by `read`."""
        with contextlib.suppress(OSError), self._writing:
            self._connection.sendall((" ".join(map(str, words)) + "\n").encode())

    def read(self, patience: float) -> list[str]:
        """The next words that are no heartbeat; none if the other one is gone."""
        with contextlib.suppress(OSError):
            # 0 would mean not to wait at all, and fail where a line is on its way.
            self._connection.settimeout(max(patience, 0.01))
            while (line := self._lines.readline(LONGEST)).split() == ["beat"]:
                pass
            return line.split() if len(line) < LONGEST else []
        return []

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._connection.close()


class Peers:
    """The connections to the other processes, observed until `close` or `fail`.

    Args:
        index: of this process.
        links: to process 0; in process 0 to every other one, by number.
    """

    def __init__(self, index: int, links: dict[int, Link]):
        self._index, self._links = index, links
        self._done = {other: threading.Event() for other in links}
        self._ended = threading.Event()
        self._leaving = threading.Lock()
        # Daemons: they must not keep alive a process whose work is over.
        for other in links:
            threading.Thread(target=self._listen, args=(other,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Waits until all processes have come here, however long their work is."""
        if self._index:
            self._send("done")
        # Process 0 waits for all others, and each of them for its answer: no process
        # leaves while another one may still need it.
        for done in self._done.values():
            done.wait()
        # Before the answer, after which they leave: a connection that breaks from here
        # on is no failure.
        self._ended.set()
        if not self._index:
            self._send("done")

    def fail(self, code: int) -> None:
        """Reports to the others that this process leaves by an error, with a code."""
        self._leaving.acquire()  # what others say about it no longer matters
        self._send("failed", self._index, code)

    def _send(self, *words: object) -> None:
        for link in self._links.values():
            link.send(*words)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._send("beat")

    def _listen(self, other: int) -> None:
        """Reads from one process until the run is over."""
        # Process 0 reads on after "done": a process that has sent it waits for the
        # answer, and may fail while waiting.
        while not (self._index and self._done[other].is_set()):
            words = self._links[other].read(SILENCE)
            if self._ended.is_set():
                return
            match words:
                case ["done"]:
                    self._done[other].set()
                case ["failed", who, code] if who.isdecimal() and code.isdecimal():
                    self._leave(int(who), int(code))
                case ["gone", who] if who.isdecimal():
                    self._leave(int(who), exits.UNFINISHED)
                case _:  # the connection is broken, silent for too long, or garbled
                    self._leave(other, exits.UNFINISHED)

    def _leave(self, who: int, code: int) -> NoReturn:
        """Ends this process, whatever it does, because another one has ended."""
        self._leaving.acquire()  # and never released: one line, one exit
        # Through process 0 the news reaches those who have no connection to `who`.
        if code == exits.UNFINISHED:
            self._send("gone", who)
            line = f"process {who} is gone; the same command carries on"
        else:
            self._send("failed", who, code)
            line = f"process {who} has left with exit code {code}; see what it printed"
        # The main thread may hang in a computation, inside of C++, where no exception
        # reaches it, and it may hold the lock of sys.stderr: so neither sys.exit nor
        # print.
        os.write(2, f"hosts: {line}\n".encode())
        os._exit(code)
