"""Where compiled programs are kept, and what happens where they cannot be."""

import os
import subprocess
import sys

import jax
import pytest

from jaxguide.runtime import compiled

LEAST = "jax_persistent_cache_min_compile_time_secs"
FOLDER = "jax_compilation_cache_dir"


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """As on the machine of a user who has set nothing; puts back what tests have."""
    before = {name: jax.config.values[name] for name in (FOLDER, LEAST)}
    monkeypatch.delenv(LEAST.upper())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(FOLDER, None)
    jax.config.update(LEAST, 1.0)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache_folder(unset, monkeypatch, capsys):
    monkeypatch.setattr(compiled, "_replace_broken", lambda folder: None)
    compiled.keep_programs()
    folder = compiled.default_folder()
    assert folder.parent == unset / "jaxguide" / "programs"
    assert jax.config.values[FOLDER] == str(folder)
    assert jax.config.values[LEAST] == 0
    assert folder.stat().st_mode & 0o077 == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(compiled.default_folder()).startswith("/home/somebody/.cache/jaxguide/")


def test_what_the_user_has_set_holds(unset, monkeypatch):
    jax.config.update(FOLDER, str(unset / "mine"))
    monkeypatch.setenv(LEAST.upper(), "1.0")
    compiled.keep_programs()
    assert jax.config.values[FOLDER] == str(unset / "mine")
    assert jax.config.values[LEAST] == 1
    jax.config.update(FOLDER, None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compiled.keep_programs()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.values[FOLDER] is None and not list(unset.iterdir())


def test_a_folder_that_cannot_be_made_is_one_line(unset, capsys):
    (unset / "jaxguide").write_text("a file in the way")
    compiled.keep_programs()
    line = capsys.readouterr().err
    assert line.startswith("compiled programs are not kept: ")
    assert line.count("\n") == 1
    assert jax.config.values[FOLDER] is None


def test_what_was_used_longest_ago_goes_first(tmp_path):
    for name, used in {"old": 10, "older": 5, "new": 20}.items():
        file = tmp_path / name
        file.write_bytes(bytes(100))
        os.utime(file, (used, 1))
    compiled.make_room(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new"}
    compiled.make_room(tmp_path, 99)
    assert not list(tmp_path.iterdir())


BROKEN = """
import jax
from jaxguide.runtime import compiled
compiled.keep_programs()
def one_more(x): return x + 1
print(jax.jit(one_more)(1.0))
"""


@pytest.mark.exhaustive
def test_a_program_cut_short_is_compiled_again(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_C", "JAX_PE"))}
    env["XDG_CACHE_HOME"] = str(tmp_path)

    def run():
        command = [sys.executable, "-c", BROKEN]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr
        (file,) = tmp_path.rglob("jit_one_more-*-cache")
        return done.stderr, file

    said, file = run()
    whole = len(file.read_bytes())
    assert said == ""
    file.write_bytes(file.read_bytes()[: whole // 2])
    said, file = run()
    assert said.count("\n") == 1 and "cannot be read and is compiled again" in said
    assert len(file.read_bytes()) > 0.9 * whole
    assert run()[0] == ""
