"""The processes of one run find each other, on the port of the coordinator."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import NoReturn

from jaxguide.errors import InputError
from jaxguide.runtime import exits, relay
from jaxguide.runtime.cluster import Place
from jaxguide.runtime.peers import Link, Peers

# Seconds between two tries, and for who connects to say what it is. A port scan, or a
# health check, must not hold up the others.
_PAUSE, _HELLO = 0.2, 2.0
# Seconds that JAX in process 0 may take to listen.
_JAX = 30.0
# An object that nobody holds would close the standard input of its process.
_RELAYS: list[subprocess.Popen] = []


def meet(place: Place, patience: float) -> tuple[Peers, str]:
    """Waits until all processes are there.

    Args:
        place: of this process.
        patience: seconds to wait for the others.

    Returns:
        The others, and the address under which JAX reaches its coordinator.

    Raises:
        InputError: if one does not come in time, or two have one number.
    """
    return _report(place, patience) if place.index else _gather(place, patience)


def _gather(place: Place, patience: float) -> tuple[Peers, str]:
    """Process 0 waits for the others to report."""
    end = time.monotonic() + patience
    links: dict[int, Link] = {}
    with _listen(place.coordinator) as listener:
        while missing := set(range(1, place.count)) - links.keys():
            listener.settimeout(max(end - time.monotonic(), 0.01))
            try:
                link = Link(listener.accept()[0])
            except TimeoutError:
                names = ", ".join(map(str, sorted(missing)))
                _refuse(
                    links.values(),
                    f"hosts: need {place.count} processes within {patience:g} s, got "
                    f"none with process_id={names}. Start them all; --wait is longer.",
                )
            # A connection with another greeting is no process of this run: ignored.
            match link.read(_HELLO):
                case ["hello", number, count]:
                    if int(number) not in missing or int(count) != place.count:
                        _refuse(
                            [link, *links.values()],
                            f"hosts: need every process_id below {place.count} once, "
                            f"got process_id={number}, num_processes={count} beside "
                            "the others. Give every process its own number.",
                        )
                    links[int(number)] = link
    # JAX's own coordinator needs a second port. It is chosen only now, as late as can
    # be, since another program may take it until JAX listens.
    port = _free_port()
    for link in links.values():
        link.send("go", port)
    return Peers(0, links), f"127.0.0.1:{port}"


def _report(place: Place, patience: float) -> tuple[Peers, str]:
    """Another process reports to process 0, and waits for its answer."""
    host, _, port = place.coordinator.rpartition(":")
    end = time.monotonic() + patience
    link = Link(_connect(host.strip("[]"), int(port), end, patience))
    link.send("hello", place.index, place.count)
    # A second longer than process 0 waits, whose line says what was missing.
    match link.read(end - time.monotonic() + 1):
        case ["go", port]:
            peers = Peers(place.index, {0: link})
            return peers, _reach(host, int(port), peers)
        case ["no", *words]:
            raise InputError(" ".join(words))
    raise InputError(
        f"hosts: need {place.count} processes within {patience:g} s, got no start from "
        f"process 0, {place.coordinator}. See what it printed."
    )


def _reach(host: str, port: int, peers: Peers) -> str:
    """A way to JAX's coordinator, which JAX itself would try in vain for minutes."""
    try:
        # The mere connection shows that the port is open between the two hosts, which
        # is another one than that of the first meeting: a firewall may block it.
        _connect(host, port, time.monotonic() + _JAX, _JAX).close()
    except ValueError:
        peers.fail(exits.MISTAKE)
        raise
    return _relay(host, port)


def _connect(host: str, port: int, end: float, patience: float) -> socket.socket:
    """Tries to reach process 0 until `end`, in seconds of the monotonic clock."""
    # Process 0 may start later than this one: refused connections are tried again.
    while True:
        left = end - time.monotonic()
        try:
            return socket.create_connection((host, port), timeout=max(left, 1.0))
        except OSError as error:
            if left < _PAUSE:
                raise InputError(
                    f"hosts: need process 0 at {host}:{port} within {patience:g} s, "
                    f"got {error}. Start it, with a port that others may reach."
                ) from error
        time.sleep(_PAUSE)


def _refuse(links: Iterable[Link], line: str) -> NoReturn:
    for link in links:
        link.send("no", line)
    raise InputError(line)


def _listen(coordinator: str) -> socket.socket:
    """Where the others report, on every address of this host."""
    port = int(coordinator.rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(
            f"hosts: need a free port on process 0, got coordinator={coordinator!r}: "
            f"{error}. Choose another one."
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:  # port 0: the system chooses a free one
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _relay(host: str, port: int) -> str:
    """A local address that leads to another, and stays open when that is gone.

    JAX's client ends the process, with lines of its own, in the moment when its
    connection to process 0 breaks. Behind a relay it notices nothing, and `Peers` says
    what has happened.
    """
    # A process, not a thread: JAX's `reached_sync_point` keeps Python's lock while it
    # waits for an answer of process 0, which a thread could not bring.
    words = [sys.executable, "-I", "-S", relay.__file__, host, str(port)]
    started = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,  # held open until this process ends, however it ends
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    _RELAYS.append(started)
    assert started.stdout is not None
    return f"127.0.0.1:{int(started.stdout.readline())}"
