"""Two runs never share a folder; what a dead one has left is taken over."""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import pytest

from jaxguide import train as training
from jaxguide.errors import InputError, UnwritableError
from jaxguide.train import lock
from jaxguide.train.lock import Lock
from tests.train.test_survival import experiment, loop

FAST_COMPILE = True
HOLD = """
import sys, time
from pathlib import Path
from jaxguide.train.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(host=None, pid=1, start="x"):
    return {"host": host or socket.gethostname(), "pid": pid, "start": start}


def test_a_second_run_is_one_line_and_the_next_one_enters(tmp_path):
    folder = tmp_path / "run"
    with Lock(folder):
        with pytest.raises(InputError, match="need a folder that no other run") as told:
            with Lock(folder):
                pass
        assert f"process {os.getpid()} on host {socket.gethostname()}" in str(
            told.value
        )
        assert "\n" not in str(told.value) and str(folder / lock.NAME) in str(
            told.value
        )
    assert not list(folder.iterdir())
    with Lock(folder):
        pass


def test_a_run_takes_the_lock_of_its_folder(tmp_path):
    held = tmp_path / "run"
    with jax.numpy_dtype_promotion("standard"), Lock(held):
        with pytest.raises(InputError, match="need a folder that no other run uses"):
            training.run(experiment(), loop(held, 2))
        assert [path.name for path in held.iterdir()] == [lock.NAME]
    with jax.numpy_dtype_promotion("standard"):
        training.run(experiment(), loop(held, 1))
    assert not (held / lock.NAME).exists()


def test_what_a_dead_process_has_left_is_taken_over_with_a_line(tmp_path, capsys):
    (tmp_path / lock.NAME).write_text(json.dumps(holder(pid=7)))
    with Lock(tmp_path):
        said = capsys.readouterr().out
    assert said.count("\n") == 1 and "which process 7 on host" in said


@pytest.mark.exhaustive
def test_the_lock_of_a_killed_process_is_taken_over_with_a_line(tmp_path, capsys):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"where process {process.pid} on host"):
            with Lock(tmp_path):
                pass
    finally:
        process.kill()
        process.wait()
    with Lock(tmp_path):
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and f"which process {process.pid} on" in said
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def without_locks(monkeypatch):
    """A file system that has none."""

    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_without_locks_of_the_system_the_file_tells(tmp_path, monkeypatch, capsys):
    without_locks(monkeypatch)
    with Lock(tmp_path):
        with pytest.raises(InputError, match="need a folder that no other run"):
            with Lock(tmp_path):
                pass
    for gone in (holder(pid=2**22 + 1), holder(pid=os.getpid(), start="before")):
        (tmp_path / lock.NAME).write_text(json.dumps(gone))
        with Lock(tmp_path):
            assert "takes over" in capsys.readouterr().out


def test_another_host_must_show_a_sign_of_life(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    file = tmp_path / lock.NAME
    file.write_text(json.dumps(holder("elsewhere", 7)))
    with Lock(tmp_path):
        said = capsys.readouterr().out
    assert "waiting for a sign of life" in said
    assert "which process 7 on host elsewhere has left" in said

    monkeypatch.setattr(lock, "PATIENCE", 60.0)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(file, (1, 1)))
    file.write_text(json.dumps(holder("elsewhere", 7)))
    with pytest.raises(InputError, match="process 7 on host elsewhere is training"):
        with Lock(tmp_path):
            pass
    assert json.loads(file.read_text())["host"] == "elsewhere", "left as it was"


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with Lock(tmp_path):
        file = tmp_path / lock.NAME
        os.utime(file, (1, 1))
        while file.stat().st_mtime < 2:
            time.sleep(0.005)


@pytest.mark.parametrize("said", [b"", b"\xff\x00", b"[1]", b'{"host": 3}', b"{"])
def test_a_damaged_lock_holds_nobody_up(tmp_path, said, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    (tmp_path / lock.NAME).write_bytes(said)
    with Lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableError, match="need a folder that can be written"):
        with Lock(tmp_path / "file" / "run"):
            pass
