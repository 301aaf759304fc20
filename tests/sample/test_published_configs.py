"""Configs of published checkpoints: a converted file is all that they need."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxguide.convert import __main__ as convert
from jaxguide.sample import columns, jobs
from jaxguide.sample.build import Adaptive
from tests.convert.test_published import official

FAST_COMPILE = True
CONFIGS = Path(__file__).parents[2] / "configs"
# stem: (format, evaluations per image of the published sampling, guided channels)
PUBLISHED = {
    "dit_xl2_256": ("dit", 500, 3),
    "dit_xl2_512": ("dit", 500, 3),
    "sit_xl2_ode": ("sit", None, 3),
    "sit_xl2_sde": ("sit", 500, 3),
    "sit_xl2_repa": ("repa", 422, 0),
    "sit_xl2_mg": ("mg", 250, 0),
}


def get_config(stem, *arg):
    return runpy.run_path(str(CONFIGS / f"{stem}.py"))["get_config"](*arg)


def converted(tmp_path, format):
    """The file that a small random one of this layout becomes."""
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    arrays = official(outputs=8 if format in ("dit", "sit") else 4)
    save_file({name: 0.1 * value for name, value in arrays.items()}, str(theirs))
    convert.import_file(format, theirs, ours, heads=2)
    return str(ours)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_a_converted_file_is_all_that_a_config_needs(tmp_path, stem):
    format, nfe, channels = PUBLISHED[stem]
    file = converted(tmp_path, format)
    config = get_config(stem)
    assert config.num_samples == 0 and config.guided_channels == -1
    config = dataclasses.replace(config, checkpoint=file, labels="0-2")
    job = jobs.build_job(config)
    assert job.weights.guided_channels == channels
    (title, chain), *others = job.columns.items()
    assert not others and (title == "none") == (format == "mg")
    if nfe is None:
        assert job.sampler == Adaptive(1e-3, 1e-6, per_sample=False)
    else:
        assert job.cost(chain).nfe == nfe and len(job.grid) == 251
    names = [type(part).__name__ for part in chain.parts]
    assert ("GuidedChannels" in names) == (channels == 3)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_the_published_set_is_named_whole(stem):
    config = get_config(stem, "fid")
    assert (config.num_samples, config.labels, config.num_steps) == (50_000, "all", 250)
    assert config.autoencoder and config.folder.endswith("-fid")
    floor = stem in ("sit_xl2_repa", "sit_xl2_mg")
    assert config.rounding == ("floor" if floor else "nearest")
    with pytest.raises(ValueError, match="need a name in .*got name='big'"):
        get_config(stem, "big")


def test_dit_runs_as_its_checkpoint_says(tmp_path):
    """The variance that it learnt is used, and its fourth channel not guided."""
    config = dataclasses.replace(
        get_config("dit_xl2_256"),
        checkpoint=converted(tmp_path, "dit"),
        labels="0-2",
        num_steps=3,
    )

    def made(**fields):
        job = jobs.build_job(dataclasses.replace(config, **fields))
        ((_, column),) = columns.run(job)
        assert np.isfinite(column.images).all()
        return column.images

    assert made().shape == (3, 1, 8, 8, 4)  # its sampler needs the learned variance
    one = dict(sampler="ddim", num_steps=1)  # leaves the fourth channel alone exactly
    plain, guided = made(columns=("none",), guidance=[], **one), made(**one)
    np.testing.assert_array_equal(guided[..., 3], plain[..., 3])
    assert np.abs(guided[..., :3] - plain[..., :3]).max() > 1e-3


@pytest.mark.exhaustive
@pytest.mark.parametrize("stem", PUBLISHED)
def test_the_tiny_form_runs(stem):
    job = jobs.build_job(get_config(stem, "tiny"))
    for _, column in columns.run(job):
        assert column.images.shape[:2] == (2, 2) and np.isfinite(column.images).all()
