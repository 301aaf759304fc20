"""An image is a function of seed, label and its number, and of nothing beside it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxguide.errors import NonFiniteError
from jaxguide.sample import __main__ as command, columns as sampling, jobs
from jaxguide.sample.config import SampleConfig
from tests import quick, tiny_checkpoint

FAST_COMPILE = True
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return SampleConfig(
        checkpoint=tiny_checkpoint.write(file),
        guidance=[
            dict(name="cfg", scale=3.0),
            dict(name="s2", weight=0.5, t_lo=0.0, t_hi=1.0),
        ],
        columns=("cfg+s2",),
        sampler="ddim(eta=1.0)",
        num_steps=3,
        labels="0-2",
        per_class=4,
    )


def sample(config, **changes):
    """title -> images [classes, per_class, H, W, C]."""
    job = jobs.build_job(dataclasses.replace(config, **changes))
    return {title: column.images for title, column in sampling.run(job)}


@pytest.fixture(scope="module")
def base(config):
    (images,) = sample(config).values()
    assert images.shape == (3, 4, 8, 8, 1)
    assert np.abs(images[0] - images[1]).max() > 0.1
    assert np.abs(images[0, 0] - images[0, 1]).max() > 0.1
    return images


@pytest.mark.exhaustive  # a sample's independence of its batch: test_generate
def test_the_batch_size_does_not_matter(config, base):
    (images,) = sample(config, batch_size=8).values()
    np.testing.assert_allclose(images, base, atol=1e-5)


@pytest.mark.exhaustive  # a sample's independence of its batch: test_generate
def test_other_labels_beside_it_do_not_matter(config, base):
    (images,) = sample(config, labels="shoe,0", per_class=2).values()
    np.testing.assert_allclose(images, base[[2, 0], :2], atol=1e-5)


@pytest.mark.exhaustive  # also of sets: test_sets
def test_the_seed_matters(config, base):
    (images,) = sample(config, seed=1).values()
    assert np.abs(images - base).reshape(3, -1).max(axis=1).min() > 0.1


@pytest.mark.exhaustive
def test_columns_start_from_the_same_noise(config):
    neutral = [dict(name="cfg", scale=1.0), dict(name="sg_prev", weight=0.0)]
    columns = ("none", "cfg", "cfg+sg_prev")
    found = sample(config, guidance=neutral, columns=columns, labels="1")
    np.testing.assert_array_equal(found["cfg"], found["none"])
    np.testing.assert_array_equal(found["cfg+sg_prev"], found["none"])


CHILD = """
import sys
import jax, numpy as np
from jaxguide.sample import columns as sampling, jobs
from jaxguide.sample.config import SampleConfig
assert jax.device_count() == 1
config = eval(sys.argv[1])
(found,) = sampling.run(jobs.build_job(config))
np.save(sys.argv[2], found[1].images)
"""


@pytest.mark.exhaustive  # independence of devices: test_sets
def test_the_number_of_devices_does_not_matter(config, base, tmp_path):
    file = tmp_path / "images.npy"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, repr(config), str(file)],
        env=quick.environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(file), base, atol=1e-5)


def test_costs_are_promised_for_every_column(config):
    columns = ("none", "cfg", "cfg+s2")
    costs = jobs.build_job(dataclasses.replace(config, columns=columns)).costs()
    assert {title: cost.nfe for title, cost in costs.items()} == {
        "none": 3,
        "cfg": 6,
        "cfg+s2": 9,
    }
    flops = {title: cost.flops for title, cost in costs.items()}
    assert flops["cfg"] < flops["cfg+s2"] < 1.5 * flops["cfg"]


def brightness(x0, cond):
    """An energy: low where images are bright."""
    return -x0.mean(axis=(1, 2, 3))


def test_a_config_reaches_functions_tables_and_recurrence(
    config, tmp_path, monkeypatch
):
    seen, run = {}, sampling.run

    def watched(job):
        for title, column in run(job):
            seen[title] = column.images
            yield title, column

    monkeypatch.setattr(sampling, "run", watched)
    energy = dict(
        name="energy", weight=2.0, function="tests.sample.test_columns:brightness"
    )
    table = np.ones((3, 2, 1)) / 2
    changed = dataclasses.replace(
        config,
        guidance=[
            dict(name="cfg", scale=lambda t: 2.0 + t),
            dict(name="linear_ag", scale=1.5, coefficients=table),
            energy,
        ],
        columns=("cfg+linear_ag", "cfg+linear_ag+energy"),
        sampler="recurrent(sampler='ddim(eta=1.0)', repeats=2)",
        folder=str(tmp_path),
    )
    command.run(changed)
    record = json.loads((tmp_path / "run.json").read_text())
    cfg, linear, last = record["config"]["guidance"]
    assert "test_columns:test_a_config" in cfg["scale"]
    assert linear["coefficients"] == table.tolist() and last == energy
    assert (tmp_path / "grid.png").exists()
    nfe = [column["nfe_per_image"] for column in record["columns"].values()]
    assert nfe == [12, 12]  # cond and null, twice in each of three steps
    plain, bright = seen.values()
    assert bright.mean() > plain.mean() + 0.01


def test_images_of_no_numbers_are_refused_by_column_and_label():
    images = np.zeros((4, 2, 2, 1), np.float32)
    sampling.check_finite("cfg", images, np.arange(4))
    images[2, 1, 0] = np.inf
    with pytest.raises(NonFiniteError, match="in 1 of 4 in column 'cfg', .* label 2"):
        sampling.check_finite("cfg", images, np.arange(4))
