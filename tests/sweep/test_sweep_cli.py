"""The sweep's command line: a grid of guidances, pictures, a table, its mistakes."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxguide import samplers
from jaxguide.evaluate import config as evaluate_config
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.evaluate.features import FeatureNetwork, Features
from jaxguide.guidance import cfg, chain, s2, sg_prev
from jaxguide.runtime import sheets
from jaxguide.sample import columns as sampling
from jaxguide.sweep import __main__ as sweep, grid
from jaxguide.sweep.config import SweepConfig
from tests import tiny_checkpoint
from tests.contract.common import rest

FAST_COMPILE = True
CONFIG = str(Path(__file__).parents[2] / "configs" / "sweep.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint.write(
        tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    )


@pytest.fixture(scope="module")
def config(checkpoint):
    return SweepConfig(
        checkpoint=checkpoint,
        guidance=[
            dict(name="cfg", scale=2.0, t_lo=0.2),
            dict(name="sg_prev", weight=1.0),
            dict(name="s2", weight=0.5, drop=0.4),
        ],
        columns=("cfg+sg_prev+s2",),
        axes={
            "cfg.scale": (1.0, 3.0),
            "s2.weight": (0.0, 0.5),
            "sg_prev.t_hi": (0.3, 0.5, 0.8),
        },
        num_steps=5,
        labels="0,2",
        per_class=4,
        zoom=2,
    )


@pytest.fixture(scope="module")
def done(config):
    plan = grid.build(config)
    return plan, grid.run(plan)


# The last point has everything on; the first, with CFG and S2 off, is for the rest.
@pytest.mark.exhaustive
@pytest.mark.parametrize("index", [11, *rest(0)])
def test_every_point_is_what_sample_makes_of_it(config, done, index):
    plan, outcome = done
    assert len(outcome.compile_seconds) == 1  # for all twelve points
    assert len(outcome.results) == 12
    point = outcome.results[index].point
    guidance = chain(
        cfg(point["cfg.scale"], t_lo=0.2),
        sg_prev(1.0, t_hi=point["sg_prev.t_hi"]),
        s2(point["s2.weight"], drop=0.4),
    )
    job = dataclasses.replace(plan.job, columns={"one": guidance})
    ((_, column),) = sampling.run(job)
    found = outcome.results[index].images
    np.testing.assert_allclose(found, column.images, atol=1e-5)
    first, last = outcome.results[0].images, outcome.results[11].images
    assert np.abs(first - last).max() > 0.01


def test_the_table_has_a_row_per_point(done, tmp_path):
    plan, outcome = done
    grid.write_csv(tmp_path / "new" / "sweep.csv", outcome)
    with (tmp_path / "new" / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    axes = plan.axes
    found = [tuple(float(row[axis]) for axis in axes) for row in rows]
    assert found[:2] == [(1.0, 0.0, 0.3), (1.0, 0.0, 0.5)] and len(set(found)) == 12
    for row, result, guidance in zip(rows, outcome.results, plan.chains, strict=True):
        promised = samplers.cost(
            plan.job.network, guidance, plan.job.grid, plan.job.sampler
        )
        assert int(row["nfe_per_image"]) == promised.nfe
        assert float(row["seconds"]) > 0 and int(row["images"]) == 8
        images = result.images.astype(np.float64)
        assert float(row["mean"]) == pytest.approx(images.mean(), abs=1e-5)
        assert float(row["std"]) == pytest.approx(images.std(), abs=1e-5)
        beyond = ((images > 1) | (images < -1)).mean()
        assert float(row["saturated"]) == pytest.approx(beyond, abs=1e-5)
    nfe = [int(row["nfe_per_image"]) for row in rows]
    assert min(nfe) == 5 and max(nfe) > 10  # all off costs nothing


def test_rows_columns_and_files_of_the_pictures(done, tmp_path, monkeypatch):
    written = {}

    def watched(file, columns, row_names, *, zoom):
        written[file.name] = (columns, list(row_names))
        write(file, columns, row_names, zoom=zoom)

    write = sheets.write_sheet
    monkeypatch.setattr(sheets, "write_sheet", watched)
    plan, outcome = done
    files = grid.write_sheets(tmp_path, plan, outcome)
    assert [file.name for file in files] == [
        "sheet-s2.weight=0.png",
        "sheet-s2.weight=0.5.png",
    ]
    for file in files:
        columns, rows = written[file.name]
        assert rows == ["cfg.scale=1", "cfg.scale=3"]
        assert list(columns) == [f"sg_prev.t_hi={hi}" for hi in (0.3, 0.5, 0.8)]
        assert Image.open(file).size[0] > 3 * 4 * 8 * 2  # 3 columns of 4 images of 8
    # One cell: the second row and third column of the second picture.
    cell = written[files[1].name][0]["sg_prev.t_hi=0.8"][1]
    (result,) = [
        result
        for result in outcome.results
        if tuple(result.point.values()) == (3.0, 0.5, 0.8)
    ]
    assert cell.shape == (1, 2 * 8, 4 * 8, 1)
    np.testing.assert_array_equal(cell[0, 8:, 16:24], result.images[1, 2])


def test_one_axis_is_one_column(config, tmp_path):
    axes = {"cfg.scale": (1.0, 2.0)}
    changes = dict(axes=axes, num_steps=2, columns=("cfg",))
    plan = grid.build(dataclasses.replace(config, **changes))
    outcome = grid.run(plan)
    (file,) = grid.write_sheets(tmp_path, plan, outcome)
    assert file.name == "sheet.png" and Image.open(file).size[1] > 2 * 8 * 2


def test_an_axis_that_changes_the_structure_compiles_once_per_value(config):
    axes = {"s2.num_masks": (1, 2), "s2.weight": (1.0, 2.0)}
    changes = dict(axes=axes, num_steps=2, columns=("s2",))
    plan = grid.build(dataclasses.replace(config, **changes))
    assert plan.groups() == [[0, 1], [2, 3]]
    assert "in 2 compilations" in plan.describe()


@pytest.mark.exhaustive  # the plan stands above, one group runs in all other tests
def test_points_of_several_structures_come_in_the_order_of_the_grid(config):
    axes = {"s2.num_masks": (1, 2), "s2.weight": (1.0, 2.0)}
    changes = dict(axes=axes, num_steps=2, columns=("s2",))
    outcome = grid.run(grid.build(dataclasses.replace(config, **changes)))
    assert [tuple(result.point.values()) for result in outcome.results] == [
        (1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0),
    ]  # fmt: skip


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    sweep.main()


def test_tiny_as_a_user_runs_it(monkeypatch, capsys, checkpoint, tmp_path):
    call(
        monkeypatch,
        f"--config={CONFIG}:tiny",
        f"--config.checkpoint={checkpoint}",
        f"--config.folder={tmp_path}",
        "--config.guidance[1].weight=0.7",
    )
    printed = capsys.readouterr()
    assert "axis     cfg.scale: 1, 2" in printed.out
    assert "points   4 of cfg+sg_prev, 2 to 3 NFE per image each, in 1 compilation" in (
        printed.out
    )
    assert "4 points: step 8/8" in printed.err
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["points"] == 4 and len(record["compile_seconds"]) == 1
    assert record["config"]["guidance"][1]["weight"] == 0.7
    assert record["config"]["axes"]["cfg.scale"] == [1.0, 2.0]
    assert {"devices", "versions", "checkpoint", "run_seconds"} <= set(record)
    assert (tmp_path / "sweep.csv").read_text().count("\n") == 5
    assert Image.open(tmp_path / "sheet.png").size[0] > 0


MISTAKES = {
    "no axes": ({}, "need at least one axis"),
    "no dot": ({"cfg": (1.0,)}, "need an axis 'name.argument', got 'cfg'"),
    "unknown name": ({"cgf.scale": (1.0,)}, "Did you mean 'cfg'?"),
    "not in the column": ({"rescale.weight": (1.0,)}, "need a name in ['cfg', 's2'"),
    "unknown argument": ({"cfg.scal": (1.0,)}, "Did you mean 'scale'?"),
    "not numeric": ({"sg_prev.space": (1.0,)}, "need a string for space, got space=1"),
    "text": ({"cfg.scale": ("big",)}, "need numbers for the axis 'cfg.scale'"),
    "truth": ({"cfg.scale": (True,)}, "need numbers for the axis 'cfg.scale'"),
    "one number": ({"cfg.scale": 2.0}, "need numbers for the axis 'cfg.scale'"),
    "no values": ({"cfg.scale": ()}, "need numbers for the axis 'cfg.scale'"),
    "out of range": ({"cfg.t_hi": (0.5, 1.5)}, "cfg: window: need 0 <= t_lo < t_hi"),
    "not finite": ({"cfg.scale": (float("nan"),)}, "need a finite scale"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_axis_is_one_line(name, config):
    axes, expected = MISTAKES[name]
    with pytest.raises(ValueError) as error:
        grid.build(dataclasses.replace(config, axes=axes))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_column_that_cannot_be_swept_is_one_line(config):
    for columns in ((), ("cfg", "s2")):
        with pytest.raises(ValueError, match="need one column, the chain to sweep"):
            grid.build(dataclasses.replace(config, columns=columns))
    twice = [dict(name="cfg", scale=2.0), dict(name="cfg", scale=3.0)]
    changes = dict(guidance=twice, columns=("cfg",), axes={"cfg.scale": (1.0,)})
    with pytest.raises(ValueError, match="need one entry named 'cfg'"):
        grid.build(dataclasses.replace(config, **changes))


def test_a_mistake_on_the_command_line_exits_with_2(monkeypatch, capsys, checkpoint):
    words = [f"--config={CONFIG}:tiny", "--config.columns=('sg_prev',)"]
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, *words, f"--config.checkpoint={checkpoint}")
    line = capsys.readouterr().err
    assert error.value.code == 2 and line.count("\n") == 1
    assert "sweep cfg.scale: need a name in ['sg_prev'], got name='cfg'" in line


@pytest.fixture
def reference(tmp_path):
    """A folder's worth of made images, and a stand-in for the feature network."""
    file = tmp_path / "real.npz"
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
    np.savez(file, arr_0=np.repeat(images, 3, -1))
    return file


def test_a_scored_sweep_measures_every_point(
    config, reference, tmp_path, monkeypatch, capsys
):
    network = FeatureNetwork(
        name="small",
        size=4,
        protocol="none",
        prepare=lambda images: images.astype(np.float32) / 255,
        apply=lambda params, x: Features(jax.nn.relu(x.mean((1, 2)) @ params)),
        params=np.random.default_rng(1).standard_normal((3, 4), np.float32),
        kernel="KD-small",
    )
    monkeypatch.setattr(evaluate_config, "build_features", lambda *_: network)
    score = EvaluateConfig(
        reference=str(reference), metrics="kd,precision", cache=str(tmp_path / "cache")
    )
    scored = dataclasses.replace(
        config,
        columns=("cfg",),
        axes={"cfg.scale": (1.0, 3.0), "cfg.t_lo": (0.1, 0.5)},
        num_steps=2,
        num_samples=44,
        per_class=2,
        score=score,
        folder=str(tmp_path / "out"),
    )
    sweep.run(scored)
    printed = capsys.readouterr().out
    assert "real against real, 44 images" in printed
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {row["images"] for row in rows} == {"44"}
    for name in ("kd", "precision"):
        assert Image.open(tmp_path / "out" / f"curve-{name}.png").size[0] > 500
    # The same images, sampled and judged one point at a time.
    alone = dataclasses.replace(scored, axes={"cfg.scale": (3.0,), "cfg.t_lo": (0.5,)})
    plan = grid.build(alone)
    (result,) = grid.run(plan).results
    assert result.images.shape == (2, 2, 8, 8, 1)
    title = f"KD-{network.name}"
    assert float(rows[3][title]) == pytest.approx(result.measures[title], rel=1e-4)
    assert float(rows[0][title]) != pytest.approx(result.measures[title], rel=1e-3)


def test_a_scored_sweep_needs_images(config, reference):
    score = EvaluateConfig(reference=str(reference))
    with pytest.raises(ValueError, match="need num_samples >= 2 to score"):
        grid.build(dataclasses.replace(config, score=score))
    few = dataclasses.replace(config, num_samples=4, num_steps=2, columns=("cfg",))
    plan = grid.build(dataclasses.replace(few, axes={"cfg.scale": (1.0,)}))
    with pytest.raises(ValueError, match="need per_class=4 images of every class"):
        grid.run(plan)
