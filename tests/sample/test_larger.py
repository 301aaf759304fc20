"""Weights cut over eight devices, and branches on different ones: the same images."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest

from jaxguide import models
from jaxguide.errors import InputError
from jaxguide.models import load_weights
from jaxguide.runtime import devices
from jaxguide.sample import build, columns, jobs, sets
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.sets import SampleSet
from jaxguide.sweep import grid
from jaxguide.sweep.config import SweepConfig
from tests import tiny_checkpoint

FAST_COMPILE = True
WIDE = models.DiTConfig(
    image_size=8, channels=1, patch=4, width=64, depth=2, heads=2, num_classes=3
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "wide.safetensors"
    return SampleConfig(
        checkpoint=tiny_checkpoint.write(file, model=WIDE),
        guidance=[
            dict(name="cfg", scale=3.0, t_lo=0.3, t_hi=0.7),
            dict(name="s2", weight=0.5, drop=0.5),
        ],
        columns=("cfg+s2",),
        num_steps=4,
        labels="0-1",
        per_class=4,
    )


def sampled(config, **changes):
    """The images of a picture, and its job."""
    job = jobs.build_job(dataclasses.replace(config, **changes))
    ((_, column),) = columns.run(job)
    return column.images, job


def parts(job):
    """Of every array of the network: values in all, and on the first device."""
    leaves = jax.tree.leaves(job.network)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return [(one.size, one.addressable_shards[0].data.size) for one in arrays]


def test_pictures_with_cut_weights_are_those_of_copied_ones(config):
    whole, _ = sampled(config)
    cut, job = sampled(config, parallel="fsdp")
    np.testing.assert_array_equal(cut, whole)
    assert all(
        size == (part if size < devices.SMALL else 8 * part)
        for size, part in parts(job)
    )


@pytest.mark.exhaustive
def test_sets_with_cut_weights_are_those_of_copied_ones(config, tmp_path):
    found = []
    for parallel in ("data", "fsdp"):
        folder = str(tmp_path / parallel)
        changes = dict(num_samples=20, shard_size=16, batch_size=2, folder=folder)
        job = jobs.build_job(dataclasses.replace(config, parallel=parallel, **changes))
        sets.write_set(job)
        found.append(list(SampleSet(folder)))
    for one, other in zip(*found, strict=True):
        for name in sets.ARRAYS:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("labels", "mesh"),
    [
        ("0", {"branch": 8, "batch": 1}),
        pytest.param("0-2", {"branch": 2, "batch": 4}, marks=pytest.mark.exhaustive),
    ],
)
def test_branches_on_different_devices_give_the_same_images(config, labels, mesh):
    config = dataclasses.replace(config, labels=labels, per_class=1)
    apart, job = sampled(config, parallel="branches")
    assert dict(jobs.make_mesh(job, len(job.labels)).shape) == mesh
    np.testing.assert_array_equal(apart, sampled(config)[0])


@pytest.mark.parametrize(
    ("size", "branches", "rows"),
    [(1, 2, 1), (1, 9, 1), (2, 4, 2), (3, 2, 4), (4, 2, 4), (7, 2, 8), (64, 2, 8)],
)
def test_images_come_before_branches_where_both_have_devices(size, branches, rows):
    found = devices.branch_mesh(size, branches)
    assert dict(found.shape) == {"branch": 8 // rows, "batch": rows}


def test_loading_in_parts_holds_one_array_at_a_time(config):
    whole = build.build_weights(config.checkpoint, "float32").params
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(whole))
    tracemalloc.start()
    try:
        load_weights(config.checkpoint, place=lambda name, value: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size * 0.75
    cut = build.build_weights(config.checkpoint, "float32", parallel="fsdp").params
    jax.tree.map(np.testing.assert_array_equal, cut, whole)


def test_what_does_not_go_together_is_refused(config):
    with pytest.raises(InputError, match="need parallel 'data' or 'fsdp' for a set"):
        jobs.build_job(dataclasses.replace(config, parallel="branches", num_samples=9))
    with pytest.raises(InputError, match="parallel"):
        jobs.build_job(dataclasses.replace(config, parallel="model"))
    fields = dataclasses.asdict(config) | {"parallel": "fsdp", "columns": ("cfg",)}
    swept = SweepConfig(**fields, axes={"cfg.scale": (1.0, 2.0)})
    with pytest.raises(InputError, match="sweep: need parallel='data'"):
        grid.build(swept)
