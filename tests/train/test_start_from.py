"""Published networks are converted, trained from and sampled by commands."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxguide.convert import read_published
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.models import load_weights, save_weights
from jaxguide.sample import __main__ as sample
from jaxguide.train import __main__ as train, config, starting
from jaxguide.train.config import LossConfig, ModelConfig
from tests.convert.test_published import CLASSES, in_diffusers, official

FAST_COMPILE = True
CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = {"patch": 2, "width": 24, "depth": 3, "heads": 2}


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def converted(folder, format, arrays, **options):
    """A file of a small random network of that format."""
    small = {name: np.float32(0.05) * array for name, array in arrays.items()}
    save_file(small, str(folder / "theirs.safetensors"))
    file = folder / f"{format}.safetensors"
    read = read_published(folder / "theirs.safetensors", format, heads=2, **options)
    save_weights(file, read)
    return file


def words(name, *more):
    """Of one step on made latents of the size of the network."""
    return [
        f"--config={CONFIGS / name}:tiny",
        "--config.data.size=8",
        f"--config.data.classes={CLASSES}",
        *(f"--config.model.{field}={value}" for field, value in SIZES.items()),
        "--config.steps=1",
        "--config.preview_classes=1",
        "--config.preview_per_class=1",
        *more,
    ]


def call(monkeypatch, program, *given):
    monkeypatch.setattr(sys, "argv", ["program", *map(str, given)])
    program.main()


# Format; its arrays; the config; what is set beside that.
KINDS = {
    "REPA to Model-Guidance": ("repa", official, "mg_imagenet.py", ()),
    "Model-Guidance with a scale": (
        "mg",
        lambda: official(scale=True),
        "mg_imagenet.py",
        ("--config.loss.name=scale_aware_model_guidance",),
    ),
    "SiT": (
        "sit",
        lambda: official(outputs=8),
        "sit_imagenet.py",
        ("--config.model.learn_sigma=True",),
    ),
    "DiT": ("dit", lambda: official(outputs=8), "dit_imagenet.py", ()),
    "DiT of diffusers": (
        "diffusers-dit",
        in_diffusers,
        "dit_imagenet.py",
        ("--config.model.downscale_freq_shift=1.0",),
    ),
    "SiT, distilled": (
        "sit",
        lambda: official(outputs=8),
        "sit_imagenet.py",
        ("--config.model.learn_sigma=True", "--config.loss.name=cfg_distillation"),
    ),
    "DiT, distilled": (
        "dit",
        lambda: official(outputs=8),
        "dit_imagenet.py",
        ("--config.loss.name=cfg_distillation",),
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_published_network_is_trained_from_and_sampled(tmp_path, monkeypatch, kind):
    format, arrays, name, more = KINDS[kind]
    options = {"image_size": 8} if format == "diffusers-dit" else {}
    file = converted(tmp_path, format, arrays(), **options)
    begin = "loss.teacher" if "cfg_distillation" in "".join(more) else "start_from"
    run = tmp_path / "run"
    call(
        *(monkeypatch, train),
        *words(name, *more, f"--config.{begin}={file}", f"--config.folder={run}"),
    )
    before, after = load_weights(file), load_weights(run / "weights.safetensors")
    assert after.latents == before.latents == "sd-vae-ft-ema"
    assert after.guided_channels == before.guided_channels
    # One step of at most 1e-4 from there, in half precision.
    for path, leaf in jax.tree_util.tree_leaves_with_path(before.params):
        new = dict(jax.tree_util.tree_leaves_with_path(after.params))[path]
        np.testing.assert_allclose(new, leaf, atol=3e-4, err_msg=str(path))
    call(
        *(monkeypatch, sample),
        *(f"--config={CONFIGS / 'sit_xl2_ode.py'}:tiny", "--config.labels=0"),
        *(f"--config.checkpoint={run / 'weights.safetensors'}", "--config.seed=1"),
        *("--config.sampler=euler", "--config.grid=uniform", "--config.num_steps=2"),
        *("--config.columns=('none',)", f"--config.folder={tmp_path}"),
    )
    assert list(tmp_path.glob("*.png"))


def parts(**changes):
    """A network of the trainer, as its config and the data make it."""
    model = ModelConfig(**SIZES, **{"time_scale": 1.0} | changes)
    return config.models.DiTConfig(
        image_size=(8, 8),
        channels=4,
        num_classes=CLASSES,
        **(config.dataclasses.asdict(model) | {"dtype": "float32"}),
    )


def read(file, model, **loss):
    return starting.read_alike("train", "start_from", file, LossConfig(**loss), model)


def test_a_converted_file_is_of_the_architecture_that_the_trainer_builds(tmp_path):
    repa = converted(tmp_path, "repa", official())
    sit = converted(tmp_path, "sit", official(outputs=8))
    assert read(repa, parts()).model.image_size == 8
    assert read(sit, parts(time_scale=-1.0, time_offset=1.0, learn_sigma=True))
    with pytest.raises(InputError) as refused:
        read(sit, parts(learn_sigma=True))
    line = str(refused.value)
    assert "here model.time_scale=1.0, model.time_offset=0.0" in line
    assert "got model.time_scale=-1.0, model.time_offset=1.0 in start_from=" in line
    with pytest.raises(InputError, match="here loss.kind='noise', got loss.kind='velo"):
        read(repa, parts(), kind="noise")


def test_weights_that_are_not_finite_are_not_trained_from(tmp_path):
    rows = converted(tmp_path, "mg", official(rows=CLASSES), num_classes=CLASSES)
    with pytest.raises(NonFiniteError, match="NaN or infinite values of label_table"):
        read(rows, parts())


def test_published_configs_count_their_average_from_the_first_step():
    import runpy

    times = {"dit": (1000.0, -1.0), "sit": (-1.0, 1.0), "mg": (1.0, 0.0)}
    for name, (scale, offset) in times.items():
        run = runpy.run_path(str(CONFIGS / f"{name}_imagenet.py"))["get_config"]()
        assert not run.ema_warmup
        assert (run.model.time_scale, run.model.time_offset) == (scale, offset)
