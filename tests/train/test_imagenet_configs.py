"""Every DiT and SiT on ImageNet latents has a config, and each runs small."""

import runpy
from pathlib import Path

import jax
import pytest

from jaxguide.data import config as data_config
from jaxguide.models import dit_config, parameter_count
from jaxguide.train import __main__ as train, config

FAST_COMPILE = True
CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ("dit_imagenet", "sit_imagenet", "mg_imagenet")


def get_config(name, *arg):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*arg)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["S/2", "B/4", "L/8", "XL/2"])
@pytest.mark.parametrize("pixels", ["256", "512"])
def test_a_size_is_the_published_one(name, size, pixels):
    run = get_config(name, f"{size},{pixels}")
    wanted = dit_config(size)
    for field in ("patch", "width", "depth", "heads"):
        assert getattr(run.model, field) == getattr(wanted, field)
    assert (
        run.data.path.endswith(pixels) and size.lower().replace("/", "") in run.folder
    )
    assert (run.batch_size, run.ema, run.optimizer.peak) == (256, (0.9999,), 1e-4)


def test_the_default_is_the_largest_and_has_the_published_parameters():
    run = get_config("dit_imagenet")
    small = data_config.DataConfig(name="made_latents", size=32)
    model = config.build_model(run, data_config.build_dataset(small))
    assert parameter_count(model) == 675_129_632


@pytest.mark.parametrize("arg", ["XL/3", "XL/2,B/2"])
def test_a_wrong_word_is_named(arg):
    with pytest.raises(ValueError, match="need (a name|one size)"):
        get_config("sit_imagenet", arg)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "arg"),
    [*((name, "tiny") for name in NAMES), (NAMES[0], "S/8,512,tiny")],
)
def test_the_tiny_one_trains(name, arg, tmp_path):
    run = get_config(name, arg)
    run.folder, run.steps = str(tmp_path), 2
    with jax.numpy_dtype_promotion("standard"):
        train.run(run)
    assert (tmp_path / "weights.safetensors").is_file()
    assert (tmp_path / "samples" / "000002.png").is_file()
