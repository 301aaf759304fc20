"""The examples run as a reader runs them, and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import quick

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs the source tree")


# What runs an example, and then tells which rooms of the package it has opened.
RUNNER = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("jaxguide.")}
print("rooms: " + " ".join(rooms))
print("heavy: " + " ".join({"flax", "optax", "diffrax", "orbax"} & set(sys.modules)))
"""
LIGHT = {"errors", "guidance", "oracle", "paths", "samplers"}


def run(name, brings=()):
    """The lines that the example printed, by what stands before the colon.

    It opens only rooms of the package that need jax and numpy, and imports no heavy
    package besides those that it `brings` itself.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(FOLDER / name)],
        env=quick.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert set(found["rooms"].split()) <= LIGHT
    assert set(found["heavy"].split()) <= set(brings)
    return found


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
    found = run("flax_model.py", brings=("flax", "optax", "orbax"))
    mine, exact = (
        numbers(found[f"CFG, {name}"]) for name in ("the network", "the exact model")
    )
    assert max(abs(a - b) for a, b in zip(mine, exact, strict=True)) < 0.15
    assert "40 steps, 112 NFE per image" in found["CFG + S2, cost"]
    assert numbers(found["CFG + S2, the network"]) != mine


@pytest.mark.exhaustive
def test_diffrax_ode():
    found = run("diffrax_ode.py", brings=("diffrax",))
    assert numbers(found["diffrax, largest error"])[0] < 1e-3
    assert numbers(found["integrate, largest error"])[0] < 1e-3
    assert numbers(found["integrate, NFE per image"])[0] > 0


@pytest.mark.exhaustive
def test_hackable_inference():
    found = run("hackable_inference.py")
    assert numbers(found["largest difference"])[0] < 1e-4
    assert numbers(found["largest difference of samplers"])[0] < 1e-4
    assert numbers(found["CFG in a window, largest error"])[0] < 0.05
    # Of 200 steps, 100 lie in the window; the other ones need no second call.
    assert found["theirs, network calls"] == "400"
    assert found["jaxguide in theirs, network calls"] == "300"
    assert found["jaxguide, network calls"] == "300"
    (second,) = numbers(found["SG-prev, 20 calls"])
    (first,) = numbers(found["Euler, 20 calls"])
    assert second < 0.2 * first


@pytest.mark.exhaustive
def test_maxdiffusion_transformer():
    found = run("maxdiffusion_transformer.py", brings=("flax", "optax", "orbax"))
    assert found["network calls compiled, for three scales"] == "1"
    difference = found["CFG 5, largest difference from the pipeline"]
    assert numbers(difference)[0] < 1e-4
    assert numbers(found["CFG 5, largest error"])[0] < 1e-4
    assert "20 steps, 31 NFE per image" in found["CFG in a window + SG-prev"]
    assert numbers(found["its latents against CFG 5"])[0] > 0.01


@pytest.mark.exhaustive
def test_equinox_model():
    found = run("equinox_model.py", brings=("optax",))
    mine, exact = (
        numbers(found[f"CFG, {name}"]) for name in ("the model", "the exact model")
    )
    assert max(abs(a - b) for a, b in zip(mine, exact, strict=True)) < 0.1
    assert numbers(found["CFG + autoguidance, the model"]) != mine
    assert found["scale 1, largest difference"] == "0.0"


def test_every_example_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    for file in FOLDER.glob("*.py"):
        assert f'run("{file.name}"' in source
