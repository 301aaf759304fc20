"""Processes meet, or say who is missing; and leave together when one is gone."""

import contextlib
import dataclasses
import math
import os
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxguide.errors import InputError
from jaxguide.runtime import greeting, hosts, meeting, peers
from jaxguide.runtime.cluster import Place
from jaxguide.train import config
from tests.train.test_hosts import free_port


@pytest.fixture
def place(monkeypatch):
    """Places of two processes, beside something that listens in place of JAX."""
    address = f"127.0.0.1:{free_port()}"
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(meeting, "_free_port", lambda: port)
        yield [Place("flags", address, 2, index) for index in range(2)]


@pytest.fixture
def left(monkeypatch):
    """Exit codes with which processes would have left."""
    codes = queue.Queue()

    def leave(code):
        codes.put(code)
        threading.Event().wait()  # a thread that says no more

    monkeypatch.setattr(os, "_exit", leave)
    return codes


def meet(*places, patience=60.0):
    """What each place finds: its peers and an address, or its error."""

    def one(place):
        try:
            return meeting.meet(place, patience)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, places))


def report(place, *words):
    """A process of which only the connection is there."""
    host, port = place.coordinator.split(":")
    while True:
        try:
            found = socket.create_connection((host, int(port)))
            break
        except ConnectionRefusedError:
            pass
    found.sendall((" ".join(map(str, words)) + "\n").encode())
    return found


def with_a_fake(place):
    """The connection of process 1, after both have met."""
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meeting.meet, place[0], 60.0)
        fake = report(place[1], "hello", 1, 2, "0" * 16)
        first.result()
    assert fake.recv(100).startswith(b"go ")
    return fake


def test_processes_meet_and_end_together(place, left, capfd):
    (first, address), (other, relayed) = meet(*place)
    assert address.startswith("127.0.0.1:") and relayed.startswith("127.0.0.1:")
    assert address != relayed
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(first.close)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        other.close()
        waiting.result(timeout=60)
    assert left.empty() and capfd.readouterr().err == ""


def test_a_missing_process_is_named_to_all(place):
    three = [dataclasses.replace(one, count=3) for one in place]
    for told in meet(*three, patience=3):
        assert "need 3 processes within 3 s, got none with process_id=2" in told


def test_a_missing_process_0_is_one_line(place):
    (told,) = meet(place[1], patience=0.1)
    assert f"need process 0 at {place[1].coordinator} within 0.1 s, got" in told
    assert "\n" not in told


def test_a_number_given_twice_is_refused(place):
    three = [dataclasses.replace(one, count=3) for one in (*place, place[1])]
    for told in meet(*three):
        assert "need every process_id below 3 once, got process_id=1" in told


def test_a_coordinator_of_jax_that_is_out_of_reach_is_one_line(
    place, left, monkeypatch, capfd
):
    port = free_port()
    monkeypatch.setattr(meeting, "_free_port", lambda: port)
    monkeypatch.setattr(meeting, "_JAX", 0.3)
    told = meet(*place)[1]
    assert f"need process 0 at 127.0.0.1:{port} within 0.3 s, got" in told
    assert left.get(timeout=60) == 2
    assert "process 1 has left with exit code 2" in capfd.readouterr().err


STRANGERS = {
    "a web client": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "words for numbers": b"hello x y\n",
    "no token": b"hello 1 2\n",
    "a token that is none": b"hello 1 2 secret\n",
    "odd digits": "hello \u00b2 \u0662 0000000000000000\n".encode(),
    "a negative number": b"hello -1 2 0000000000000000\n",
    "a long line": b"hello " * 20_000,
    "bytes": bytes(range(256)) * 4,
    "nothing": b"",
}


def test_who_is_no_process_of_ours_is_passed_over(place):
    """All at once, and some of them never say anything."""
    host, port = place[0].coordinator.split(":")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meeting.meet, place[0], 60.0)
        held = [report(place[0], "GET")]
        for said in STRANGERS.values():
            held.append(socket.create_connection((host, int(port))))
            with contextlib.suppress(OSError):
                held[-1].sendall(said)
        other = pool.submit(meeting.meet, place[1], 60.0)
        found = [first.result()[0], other.result()[0]]
        list(pool.map(lambda each: each.close(), found))
    for one in held:
        one.close()


def test_another_config_is_one_line_on_both(place):
    with ThreadPoolExecutor() as pool:
        tokens = greeting.token({"seed": 0}), greeting.token({"seed": 1})
        asked = [
            pool.submit(meeting.meet, one, 60.0, token)
            for one, token in zip(place, tokens, strict=True)
        ]
        told = [str(one.exception()) for one in asked]
    assert told[0] == told[1] and "\n" not in told[0]
    assert "need the same command and config in every process" in told[0]
    assert f"process_id=1 (digest {tokens[1]} beside {tokens[0]}" in told[0]


def test_a_token_is_that_of_every_value_and_of_no_address():
    one, same = (config.TrainConfig(seed=3), config.TrainConfig(seed=3))
    assert greeting.token(one) == greeting.token(same)
    others = [config.TrainConfig(seed=4), config.TrainConfig(seed=3, folder="b"), None]
    others += [{"scale": np.float32(1)}, {"scale": np.float32(2)}, {"scale": len}]
    assert len({greeting.token(one) for one in [same, *others]}) == 7
    assert greeting.token(object()) == greeting.token(object())


@pytest.mark.parametrize("wait", [math.nan, math.inf, -1.0, 0.0, 1e300])
def test_a_wait_is_a_number_of_seconds(wait):
    with pytest.raises(InputError, match="need 0 < wait <= 1e\+06 seconds, got wait="):
        with hosts.join(wait=wait):
            pass


def test_garbled_news_of_a_peer_ends_the_others_as_if_it_were_gone(place, left, capfd):
    fake = with_a_fake(place)
    fake.sendall(b"failed x y\n")
    assert left.get(timeout=60) == 75
    assert "process 1 is gone" in capfd.readouterr().err


def test_a_taken_port_is_one_line(place):
    with socket.create_server(("", int(place[0].coordinator.split(":")[1]))):
        (told,) = meet(place[0], patience=0.1)
    assert "need a free port on process 0, got coordinator=" in told


def test_a_broken_connection_ends_the_others(place, left, capfd):
    with_a_fake(place).close()
    assert left.get(timeout=60) == 75
    wanted = "hosts: process 1 is gone; the same command carries on\n"
    assert capfd.readouterr().err == wanted


def test_silence_ends_the_others(place, left, capfd, monkeypatch):
    monkeypatch.setattr(peers, "SILENCE", 0.3)
    fake = with_a_fake(place)
    assert left.get(timeout=60) == 75
    assert "process 1 is gone" in capfd.readouterr().err
    assert fake.recv(100) == b"gone 1\n"


def test_heartbeats_come_and_are_passed_over(place, left, monkeypatch):
    monkeypatch.setattr(peers, "BEAT", 0.05)
    fake = with_a_fake(place)
    assert fake.recv(5) == b"beat\n"
    fake.sendall(b"beat\nbeat\nfailed 1 2\n")
    assert left.get(timeout=60) == 2


def test_a_failure_ends_the_others_with_its_code(place, left, capfd):
    (first, _), (other, _) = meet(*place)
    other.fail(2)
    assert left.get(timeout=60) == 2
    told = capfd.readouterr().err
    assert told == "hosts: process 1 has left with exit code 2; see what it printed\n"
    del first


def test_a_relay_stays_open_when_its_end_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        relayed = meeting._relay(*server.getsockname()).split(":")
        near = socket.create_connection((relayed[0], int(relayed[1])))
        near.sendall(b"hello")
        far = server.accept()[0]
        assert far.recv(10) == b"hello"
        far.sendall(b"you")
        assert near.recv(10) == b"you"
        far.close()
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(10)
