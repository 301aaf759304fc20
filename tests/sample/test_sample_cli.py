"""The command line of the sampler, as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxguide import models
from jaxguide.runtime import devices
from jaxguide.sample import (
    __main__ as sample,
    build,
    columns,
    config as sample_config,
    jobs,
)
from tests import quick, tiny_checkpoint

FAST_COMPILE = True
ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint.write(
        tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    )


def call(monkeypatch, *words):
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    sample.main()


def refused(monkeypatch, capsys, *words):
    """The one line on standard error of a command that is refused."""
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, *words)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.endswith("\n"), line
    assert "Traceback" not in line
    return line


def test_as_a_user_runs_it(checkpoint, tmp_path):
    words = [f"--config={DEMO}:tiny", f"--config.checkpoint={checkpoint}"]
    words += ["--config.columns=('none','cfg')", f"--config.folder={tmp_path}/out"]
    done = subprocess.run(
        [sys.executable, "-m", "jaxguide.sample", *words],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env=quick.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "column   none: 2 steps, 2 NFE per image" in done.stdout
    assert "column   cfg: 2 steps, 4 NFE per image" in done.stdout
    assert Image.open(tmp_path / "out" / "grid.png").size[0] > 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["config"]["num_steps"] == 2
    assert record["checkpoint"] == {"steps": 0, "seed": 0}
    assert record["versions"]["jax"] == jax.__version__
    promised = {
        title: column["nfe_per_image"] for title, column in record["columns"].items()
    }
    for title, nfe in promised.items():
        assert f"column   {title}: 2 steps, {nfe} NFE" in done.stdout


def test_a_mistake_of_a_user_is_one_line(tmp_path):
    command = [sys.executable, "-m", "jaxguide.sample", "--config=configs/dmo.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, cwd=ROOT
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "'configs/demo.py'" in done.stderr


def test_overrides_reach_every_part(monkeypatch, checkpoint, tmp_path, capsys):
    seen = []
    made = jobs.build_job
    monkeypatch.setattr(jobs, "build_job", lambda c: seen.append(made(c)) or seen[0])
    call(
        monkeypatch,
        f"--config={DEMO}:tiny",
        f"--config.checkpoint={checkpoint}",
        "--config.guidance[0].scale=4.5",
        "--config.guidance[0].t_hi=0.7",
        "--config.columns=('cfg',)",
        "--config.sampler=heun",
        "--config.num_steps=3",
        "--config.labels=shoe,0",
        "--config.per_class=1",
        "--config.seed=7",
        "--config.dtype=bfloat16",
        f"--config.folder={tmp_path}",
    )
    (job,) = seen
    (part,) = job.columns["cfg"].parts
    assert float(part.weights[0].value) == 4.5 and not part.live(0.7)
    assert job.labels == [2, 0] and job.config.seed == 7
    assert job.weights.model.dtype == "bfloat16" and len(job.grid) == 4
    assert type(job.sampler).__name__ == type(build.samplers.heun()).__name__
    # Heun: two stages but in the last step; CFG at t = 2/3 and 1/3.
    assert job.costs()["cfg"].nfe == 2 + 4 + 2
    assert "cfg: 3 steps, 8 NFE per image" in capsys.readouterr().out
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["columns"]["cfg"]["nfe_per_image"] == 8


def test_promised_nfe_is_what_is_counted(checkpoint, tmp_path, monkeypatch):
    counted = []

    def counting(*args, **taps):
        jax.debug.callback(lambda: counted.append(None))
        return models.apply(*args, **taps)

    monkeypatch.setattr("jaxguide.models.predictor.apply", counting)
    monkeypatch.setattr(devices, "split", lambda rows, mesh: rows)
    config = sample_config.SampleConfig(
        checkpoint=checkpoint,
        guidance=[
            dict(name="cfg", scale=2.0, t_lo=0.2, t_hi=0.7),
            dict(name="s2", weight=0.5),
        ],
        columns=("cfg+s2",),
        num_steps=5,
        labels="0",
        per_class=8,
        batched="no",
    )
    job = jobs.build_job(config)
    list(columns.run(job))
    jax.effects_barrier()
    assert len(counted) == job.costs()["cfg+s2"].nfe


LABELS = "need numbers in 0..2 or names in ['bag', 'coat', 'shoe']"
MISTAKES = {
    "no config": ([], "need a config file"),
    "no such file": (["--config=configs/demoo.py"], "cli: need an existing file"),
    "unknown field": (["num_step=3"], "Did you mean 'num_steps'?"),
    "unknown field of an entry": (["guidance[0].scal=3"], "Did you mean 'scale'?"),
    "no such entry": (["guidance[9].scale=3"], "need a field in ['0', '1', '2']"),
    "wrong type": (["num_steps=many"], "need an integer for config.num_steps, got"),
    "wrong type of an entry": (["guidance[0].scale=big"], "scale"),
    "unknown flag": (["--nope=1"], "Unknown command line flag 'nope'"),
    "a word": (["more"], "need flags only, got 'more'"),
    "unknown transform": (["guidance[0].name=cgf"], "Did you mean 'cfg'?"),
    "unknown sampler": (["sampler=eular"], "Did you mean 'euler'?"),
    "unknown grid": (["grid=unifrom"], "Did you mean 'uniform'?"),
    "unknown column": (["columns=('cfg+s3',)"], "Did you mean 's2'?"),
    "no column": (["columns=()"], "need at least one column"),
    "argument of a sampler": (
        ["sampler=ddim(etta=1.0)"],
        "Did you mean 'eta'?",
    ),
    "argument of a grid": (["grid=shifted(shfit=2.0)"], "Did you mean 'shift'?"),
    "not a call": (["sampler=ddim(1.0)"], "Write 'ddim' or 'ddim(eta=1.0)'"),
    "no such checkpoint": (["checkpoint=fasion"], "checkpoint='fasion'"),
    "not a checkpoint": ([f"checkpoint={DEMO}"], "need a safetensors file"),
    "label out of range": (["labels=0,3"], LABELS),
    "unknown label": (["labels=sho"], "Did you mean 'shoe'?"),
    "no label": (["labels="], "labels"),
    "negative label": (["negative=9"], LABELS),
    "impossible window": (
        ["guidance[0].t_lo=0.9", "guidance[0].t_hi=0.1"],
        "need 0 <= t_lo < t_hi <= 1, got t_lo=0.9, t_hi=0.1",
    ),
    "not finite": (["guidance[0].scale=nan"], "need a finite scale"),
    "drop": (["guidance[2].drop=1.5"], "need 0 < drop < 1"),
    "no steps": (["num_steps=0"], "num_steps"),
    "no images": (["per_class=0"], "need per_class >= 1"),
    "no batch": (["batch_size=0"], "need batch_size >= 1"),
    "no zoom": (["zoom=0"], "need zoom >= 1"),
    "batched": (["batched=maybe"], "need a name in ['auto', 'no', 'yes']"),
    "dtype": (["dtype=float31"], "need dtype in"),
    "learned variance": (
        ["sampler=ddpm(variance='learned')"],
        "need a network with learned variance",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_helps(
    monkeypatch, capsys, checkpoint, name, tmp_path
):
    words, expected = MISTAKES[name]
    monkeypatch.chdir(ROOT)
    if words and not words[0].startswith("--config="):
        given = [word if word.startswith("--") else word for word in words]
        flags = [f"--config.{w}" if "=" in w and w[0] != "-" else w for w in given]
        base = [f"--config={DEMO}:tiny", f"--config.folder={tmp_path}"]
        has = any(word.startswith("checkpoint=") for word in words)
        base += [] if has else [f"--config.checkpoint={checkpoint}"]
        words = [*base, *flags]
    line = refused(monkeypatch, capsys, *words)
    assert expected in line


@pytest.mark.parametrize("words", [["--help"], [f"--config={DEMO}:tiny", "-h"]])
def test_help_explains(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, *words)
    assert error.value.code == 0
    out = capsys.readouterr().out
    assert "python -m jaxguide.sample --config FILE[:arg]" in out
    assert "--config.guidance[0].scale=2" in out
    if len(words) == 2:
        assert "--config.num_steps=2" in out and "images per class" in out


def test_a_limit_on_rows_is_one_per_device(checkpoint):
    def batched(text, devices):
        config = sample_config.SampleConfig(checkpoint=checkpoint, batched=text)
        job, two = jobs.build_job(config), np.zeros(2, np.int32)
        return jobs.inputs(job, {}, two, two, devices)[1]["batched"]

    assert batched("8", 1) == 8 and batched("8", 4) == 32
    assert batched("auto", 4) is False and batched("yes", 4) is True  # on a CPU
