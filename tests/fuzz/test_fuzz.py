"""Bad input over all commands: answered in one line, and nothing is left."""

import json
import os
import subprocess
import sys

import pytest

from tests import quick
from tests.fuzz.cases import GOOD, Case, Ended, outcome

CASES = 800


@pytest.mark.exhaustive
def test_no_bad_input_ends_in_a_traceback_or_is_accepted(tmp_path):
    counts = tmp_path / "counts.json"
    command = [sys.executable, "-m", "tests.fuzz", f"--cases={CASES}"]
    done = subprocess.run(
        [*command, "--workers=1", f"--json={counts}"],
        capture_output=True,
        text=True,
        timeout=1200,
        env=quick.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(counts.read_text())
    assert sum(found.values()) == CASES
    assert set(found) <= set(GOOD), done.stdout
    assert found["refused"] > 0.85 * CASES


@pytest.mark.parametrize(
    ("nonsense", "code", "error", "left", "name"),
    [
        (True, 2, "a line\n", (), "refused"),
        (True, 0, "", (), "accepted nonsense"),
        (False, 0, "", ("picture",), "done"),
        (True, 2, "a line\nanother\n", (), "not one line"),
        (True, 2, "a line\n", ("picture",), "left files"),
        (True, 70, "a line\n", (), "traceback"),
        (True, 2, "Traceback (most recent call last)", (), "traceback"),
        (True, 2, "'NoneType' object is not callable", (), "words of Python"),
        (True, None, "", (), "hang"),
        (True, -11, "", (), "traceback"),
        (True, 1, "", (), "exit code 1"),
    ],
)
def test_outcomes_have_these_names(nonsense, code, error, left, name):
    case = Case("sample", (), nonsense, "")
    assert outcome(case, Ended(code, error, left)) == name
