"""Files that are there as a whole or not at all, and what killed writers left."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from jaxguide.errors import UnwritableError
from jaxguide.runtime import files


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o640
    os.umask(old)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_whole_with_the_mode_of_any_new_file(tmp_path, umask):
    path = tmp_path / "new" / "x.txt"
    with files.replacing(path) as part:
        part.unlink()  # as libraries do that write a private file of their own
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and names(path.parent) == ["x.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == umask


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_part(tmp_path, error):
    (tmp_path / "x").write_text("old")
    with pytest.raises(type(error)), files.replacing(tmp_path / "x") as part:
        part.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), RuntimeError("Error: Io (os error 28)")],
)
def test_a_full_disk_is_one_line_also_in_words_of_a_library(tmp_path, error):
    with (
        pytest.raises(UnwritableError, match="tool: need a folder .*No space left"),
        files.replacing(tmp_path / "x", "tool"),
    ):
        raise error
    assert names(tmp_path) == []


def test_a_folder_in_the_way_of_a_file_is_one_line(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(UnwritableError, match="tool: need a folder"):
        files.check_writable(tmp_path / "x", "tool")
    with pytest.raises(UnwritableError), files.replacing(tmp_path / "x" / "y"):
        pass


def test_parts_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    with files.replacing(tmp_path / "x") as part:
        mine = part.name
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (tmp_path / mine.replace(f".{os.getpid()}.", f".{dead.pid}.")).touch()
    (tmp_path / mine).touch()  # of a process with our number before us
    (tmp_path / ".x.npz.elsewhere.7.0.part").touch()  # another host: not known yet
    old = tmp_path / ".x.npz.elsewhere.8.0.part"
    former = tmp_path / ".features-00000-of-00003.npz.part"
    (tmp_path / ".notes.part").touch()  # not ours
    for path in (old, former):
        path.touch()
        os.utime(path, (0, 0))
    with files.replacing(tmp_path / "y") as part:
        files.remove_stale(tmp_path)
        kept = [".notes.part", ".x.npz.elsewhere.7.0.part", part.name, "x"]
        assert names(tmp_path) == sorted(kept)
        part.touch()


def test_json_is_strict_and_what_cannot_be_read_is_none(tmp_path):
    files.write_json(tmp_path / "a", {"x": 1})
    assert files.read_json(tmp_path / "a") == {"x": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", {"x": float("nan")})
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "b").write_bytes(content)
        assert files.read_json(tmp_path / "b") is None


def test_a_stamp_changes_with_name_size_and_time(tmp_path):
    def stamped(name="a", content="1", time=5, root=tmp_path):
        path = tmp_path / name
        path.write_text(content)
        os.utime(path, ns=(1, time))
        return files.stamp([path], root)

    changed = {"name": "b", "content": "22", "time": 6, "root": None}
    others = [stamped(**{key: value}) for key, value in changed.items()]
    assert len({stamped(), *others}) == 5
    moved = tmp_path / "moved"
    moved.mkdir()
    first = stamped()
    (tmp_path / "a").rename(moved / "a")
    assert files.stamp([moved / "a"], moved) == first
