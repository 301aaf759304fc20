"""The command line of the trainer, as a user meets it."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

from jaxguide.models import load_weights
from jaxguide.runtime import flags
from jaxguide.train import __main__ as train, config
from tests import quick

FAST_COMPILE = True
DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.py")


def call(monkeypatch, *words):
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with jax.numpy_dtype_promotion("standard"):
        train.main()


def test_the_tiny_run_leaves_numbers_weights_pictures_and_its_config(tmp_path):
    words = [f"--config={DIGITS}:tiny", f"--config.folder={tmp_path}"]
    command = [sys.executable, "-m", "jaxguide.train", *words, "--config.steps=2"]
    command += ["--config.preview_classes=2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=quick.environment()
    )
    assert done.returncode == 0, done.stderr
    assert "2 steps done" in done.stdout
    assert (tmp_path / "samples" / "000002.png").stat().st_size > 0
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 2
    weights = load_weights(tmp_path / "weights.safetensors")
    assert weights.class_names == tuple("0123456789")
    assert weights.note["steps"] == 2
    assert weights.model.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "cli: need a config file"),
        (["--config=configs/digts.py"], "need an existing file"),
        ([f"--config={DIGITS}:tiny", "--config.stesp=3"], "Did you mean 'steps'?"),
        (
            [f"--config={DIGITS}:tiny", "--config.model.widht=3"],
            "Did you mean 'width'?",
        ),
        (
            [f"--config={DIGITS}", "--config.steps=many"],
            "need an integer for config.steps, got --config.steps=many",
        ),
        ([f"--config={DIGITS}", "--nope=1"], "Unknown command line flag 'nope'"),
        ([f"--config={DIGITS}", "extra"], "need flags only, got 'extra'"),
        (
            [f"--config={DIGITS}:tiny", "--config.data.name=digit"],
            "Did you mean 'digits'?",
        ),
        (
            [f"--config={DIGITS}:tiny", "--config.data.name=emoji"],
            "need an existing .npz file",
        ),
        (
            [f"--config={DIGITS}:tiny", "--config.loss.path=liner"],
            "Did you mean 'linear'?",
        ),
        (
            [f"--config={DIGITS}:tiny", "--config.loss.kind=velocty"],
            "got kind='velocty'",
        ),
        (
            [f"--config={DIGITS}:tiny", "--config.model.heads=5"],
            "need width a multiple of 4 and of heads=5",
        ),
        (
            [f"--config={DIGITS}:tiny", "--config.optimizer.schedule=cos"],
            "got name='cos'",
        ),
        ([f"--config={DIGITS}:tiny", "--config.steps=0"], "got "),
        (
            [f"--config={DIGITS}:tiny", "--config.folder=gs://bucket/run"],
            "need a folder of a file system, got --config.folder='gs://bucket/run'",
        ),
        (
            [f"--config={DIGITS}:tiny", "--coordinator=somewhere"],
            "got coordinator='somewhere'",
        ),
        (
            [f"--config={DIGITS}:tiny", "--num_processes=2", "--process_id=0"],
            "got num_processes=2 without --coordinator",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, words, line):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, *words)
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert line in error and error.count("\n") == 1


def test_a_config_file_that_fails_is_named(monkeypatch, capsys, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(arg=''):\n    return undefined\n")
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, f"--config={file}")
    assert left.value.code == 2
    assert "NameError: name 'undefined'" in capsys.readouterr().err


def test_a_bug_is_one_line_with_its_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    def main(settings, processes):
        int("not from this package")

    def left(*words):
        words = ["train.py", f"--config={DIGITS}:tiny", *words]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            flags.run(main)
        assert end.value.code == 70
        return capsys.readouterr().err

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    line = left()
    assert line.count("\n") == 1 and "ValueError: invalid literal" in line
    assert f"in your file {__file__}" in line
    (kept,) = tmp_path.glob("jaxguide-traceback-*.txt")
    assert str(kept) in line and "Traceback" in kept.read_text()
    assert "Traceback" in left("--traceback")


def test_help_exits_cleanly(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left:
        call(monkeypatch, "--help")
    assert left.value.code == 0
    assert "--config FILE" in capsys.readouterr().out


def test_tiny_changes_only_size_and_length():
    whole = config.TrainConfig()
    small = config.tiny(whole)
    assert small.data == whole.data and small.loss == whole.loss
    assert small.steps < 10 and small.model.depth == 2
