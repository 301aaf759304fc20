"""The examples run as a reader runs them, and print what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs the source tree")


def run(name):
    """The lines that the example printed, by what stands before the colon."""
    quick = {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = os.environ | quick | {"XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def test_stranger():
    found = run("stranger.py")
    _, std = numbers(found["CFG"])
    _, exact = numbers(found["closed form"])
    assert abs(std / exact - 1) < 0.02
    (second,) = numbers(found["SG-prev, 20 calls"].split("error")[1])
    (first,) = numbers(found["Euler, 20 calls"].split("error")[1])
    assert second < 0.2 * first


@pytest.mark.exhaustive  # half a minute of training
def test_flax_model():
    found = run("flax_model.py")
    mine, exact = (
        numbers(found[f"CFG, {name}"]) for name in ("the network", "the exact model")
    )
    assert max(abs(a - b) for a, b in zip(mine, exact, strict=True)) < 0.15
    assert "40 steps, 112 NFE per image" in found["CFG + S2, cost"]
    assert numbers(found["CFG + S2, the network"]) != mine


@pytest.mark.exhaustive
def test_diffrax_ode():
    found = run("diffrax_ode.py")
    assert numbers(found["diffrax, largest error"])[0] < 1e-3
    assert numbers(found["integrate, largest error"])[0] < 1e-3
    assert numbers(found["integrate, NFE per image"])[0] > 0


def test_every_example_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    for file in FOLDER.glob("*.py"):
        assert f'run("{file.name}")' in source
