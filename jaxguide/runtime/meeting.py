"""The processes of one run find each other, on the port of the coordinator."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import NoReturn

from jaxguide.errors import InputError
from jaxguide.runtime import cluster, exits, greeting, relay
from jaxguide.runtime.cluster import Place
from jaxguide.runtime.greeting import Hello
from jaxguide.runtime.peers import Link, Peers

# Seconds between two tries, and for who connects to say what it is.
_PAUSE, _HELLO = 0.2, 2.0
# Seconds after which process 0 looks up from its port.
_TURN = 0.1
# Seconds that JAX in process 0 may take to listen.
_JAX = 30.0
# An object that nobody holds would close the standard input of its process.
_RELAYS: list[subprocess.Popen] = []


def meet(place: Place, patience: float, token: str = "0" * 16) -> tuple[Peers, str]:
    """Waits until all processes are there.

    Args:
        place: of this process.
        patience: seconds to wait for the others.
        token: `greeting.token` of what all must have been given alike.

    Returns:
        The others, and the address under which JAX reaches its coordinator.

    Raises:
        InputError: if one does not come in time, two have one number, or one has
            another token.
    """
    hello = Hello(place.index, place.count, token)
    return (_report if place.index else _gather)(place, hello, patience)


def _gather(place: Place, own: Hello, patience: float) -> tuple[Peers, str]:
    """Process 0 waits for the others to report."""
    end = time.monotonic() + patience
    links: dict[int, Link] = {}
    heard: queue.Queue[tuple[Link, Hello]] = queue.Queue()
    with _listen(place.coordinator) as listener:
        listener.settimeout(_TURN)
        while missing := set(range(1, place.count)) - links.keys():
            with contextlib.suppress(OSError):
                # Each in a thread of its own: who says nothing must not hold up others.
                words = (Link(listener.accept()[0]), heard)
                threading.Thread(target=_greet, args=words, daemon=True).start()
            while not heard.empty():
                link, hello = heard.get()
                if line := _misfit(hello, own, missing - links.keys()):
                    _refuse([link, *links.values()], line)
                links[hello.index] = link
            if time.monotonic() > end and missing - links.keys():
                names = ", ".join(map(str, sorted(missing - links.keys())))
                _refuse(
                    links.values(),
                    f"hosts: need {place.count} processes within {patience:g} s, got "
                    f"none with process_id={names}. Start them all; --wait is longer.",
                )
    # JAX's own coordinator needs a second port. It is chosen only now, as late as can
    # be, since another program may take it until JAX listens.
    port = _free_port()
    for link in links.values():
        link.send("go", port)
    return Peers(0, links), f"127.0.0.1:{port}"


def _greet(link: Link, heard: queue.Queue) -> None:
    """Hands on a process of a run; anybody else is sent away without a word."""
    hello = greeting.parse(link.read(_HELLO))
    if hello is None:
        link.close()
    else:
        heard.put((link, hello))


def _misfit(hello: Hello, own: Hello, missing: set[int]) -> str:
    """Why process 0 cannot go on with who says this; "" if it can."""
    if hello.token != own.token:
        return (
            "hosts: need the same command and config in every process, got another one "
            f"in process_id={hello.index} (digest {hello.token} beside {own.token} of "
            "process 0). Start all with the same version, files and overrides."
        )
    if hello.index not in missing or hello.count != own.count:
        return (
            f"hosts: need every process_id below {own.count} once, got "
            f"process_id={hello.index}, num_processes={hello.count} beside the others. "
            "Give every process its own number."
        )
    return ""


def _report(place: Place, own: Hello, patience: float) -> tuple[Peers, str]:
    """Another process reports to process 0, and waits for its answer."""
    host, _, port = place.coordinator.rpartition(":")
    end = time.monotonic() + patience
    link = Link(_connect(host.strip("[]"), int(port), end, patience))
    link.send(*own.words())
    # A second longer than process 0 waits, whose line says what was missing.
    match link.read(end - time.monotonic() + 1):
        case ["go", port] if cluster.is_port(port):
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
