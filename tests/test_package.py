"""What is installed: every package, config and checkpoint, and nothing too large."""

import runpy
import tomllib
from pathlib import Path

import pytest

from jaxguide.data import encode
from jaxguide.evaluate import config as evaluate_config
from jaxguide.sample import build, config as sample_config, jobs
from jaxguide.train import config

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="needs the source tree"
)


def test_every_package_is_listed_for_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(folder.relative_to(ROOT).parts)
        for folder in (ROOT / "jaxguide").rglob("*")
        if folder.is_dir() and any(folder.glob("*.py"))
    }
    assert listed == found | {"jaxguide", "jaxguide.configs"}


def test_files_that_are_no_modules_are_in_the_wheel():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    data = tools["setuptools"]["package-data"]
    packed = set()
    for package, patterns in data.items():
        assert package in tools["setuptools"]["packages"]
        folder = ROOT.joinpath(*package.split("."))
        packed |= {file for pattern in patterns for file in folder.glob(pattern)}
    assert packed == {ROOT / "jaxguide" / "py.typed", *build.ASSETS.glob("*")}


def test_checkpoints_that_ship_are_small_and_load():
    files = sorted(build.ASSETS.glob("*.safetensors"))
    assert {file.stem for file in files} >= {"emoji", "fashion"}
    assert sum(file.stat().st_size for file in files) < 12e6
    for file in files:
        weights = build.build_weights(file.stem, "float32")
        assert len(weights.class_names) == weights.model.num_classes
        assert build.build_network(weights).depth == weights.model.depth


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_config_has_a_lab_note_and_a_tiny_form(file):
    namespace = runpy.run_path(str(file))
    for word in ("Run:", "Cost:", "Expected:"):
        assert word in namespace["__doc__"]
    full, tiny = namespace["get_config"](), namespace["get_config"]("tiny")
    assert type(full) is type(tiny)
    if isinstance(full, sample_config.SampleConfig):
        # Weights that others published are not there; the tiny form does without.
        chosen = tiny if full.checkpoint.endswith(".safetensors") else full
        job = jobs.build_job(chosen)
        assert job.columns.keys() == set(chosen.columns)
        assert "dopri5" in chosen.sampler or job.costs().keys() == job.columns.keys()
    elif isinstance(full, encode.EncodeConfig):
        assert encode.build_encoder(full).name == full.encoder
    elif isinstance(full, evaluate_config.EvaluateConfig):
        assert evaluate_config.build_names(tiny) == tiny.metrics.split(",")
    else:
        assert isinstance(full, config.TrainConfig) and tiny.steps < full.steps
