"""Weights cut over eight devices, and branches on different ones: the same images."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxguide import models
from jaxguide.runtime import devices
from jaxguide.sample import columns, jobs, sets
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.sets import SampleSet
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


@pytest.mark.parametrize("per_class", [1, 2])
def test_branches_on_different_devices_give_the_same_images(config, per_class):
    config = dataclasses.replace(config, per_class=per_class)
    apart, _ = sampled(config, parallel="branches")
    np.testing.assert_array_equal(apart, sampled(config)[0])
