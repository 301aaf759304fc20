"""The steps of CONTRIBUTING.md, followed literally, leave no test red."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("configs", "docs", "jaxguide", "tests", "README.md", "mkdocs.yml")
PARTS += ("CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "sample", "train")
# What speaks of every transform.
TESTS = (
    "tests/contract",
    "tests/guidance/test_oracle.py",
    "tests/test_method_pages.py",
)
TESTS += ("tests/sample/test_listing.py", "tests/test_rooms.py")

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "CONTRIBUTING.md").exists(), reason="needs the source tree"
    ),
    pytest.mark.exhaustive,  # runs the laws of one row in a process of its own
]


def steps():
    """(what is done, file, text) of every block of code of the page."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for block in re.findall(
        r"^ *```python\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE
    ):
        first, _, text = textwrap.dedent(block).partition("\n")
        done = re.fullmatch(r"# (new file|add to) (\S+)", first)
        assert done, first
        yield done[1], done[2], text


def test_the_steps_leave_no_test_red(tmp_path):
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    for done, file, text in steps():
        with (tmp_path / file).open("w" if done == "new file" else "a") as opened:
            opened.write(f"\n\n{text}" if done == "add to" else text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    made = run("docs/make_methods.py")
    assert made.returncode == 0, made.stderr
    words = ("-n", "0", "-p", "no:cacheprovider", "-m", "", "-k", "noisy_negative")
    done = run("-m", "pytest", *words, *TESTS)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20
    whole = run("-m", "pytest", *words[:-1], "not noisy", "tests/test_method_pages.py")
    assert whole.returncode == 0, whole.stdout[-3000:]
