"""Passes bytes on between a local port and another host, in a process of its own.

    python -I -S relay.py HOST PORT

prints the number of its local port, and ends when its standard input does: with the
process that has started it. It imports nothing of this package, and starts in a moment.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading


def serve(server: socket.socket, host: str, port: int) -> None:
    """Gives every connection a partner at `host:port`."""
    while True:
        near = server.accept()[0]
        try:
            far = socket.create_connection((host, port))
        except OSError:  # not up yet: who has connected tries again
            near.close()
            continue
        for ends in ((near, far), (far, near)):
            threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    # When the source ends, the target stays open on purpose: see `meeting._relay`.
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)


def main(host: str, port: int) -> None:
    """Serves until standard input ends."""
    # A system that stops a job signals all of its processes; this one is needed until
    # the state is saved.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(server, host, port), daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
