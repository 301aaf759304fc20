"""Sets of samples: files, resuming, and the same bits on any number of devices."""

import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.errors import NonFiniteError, UnwritableError
from jaxguide.models import tiny_autoencoder
from jaxguide.models.autoencoders import (
    Autoencoder,
    decode_latents,
    load_autoencoder,
    save_autoencoder,
)
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from jaxguide.runtime import sheets
from jaxguide.sample import __main__ as sample, build, columns, jobs, sets
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.sets import SampleSet
from tests import quick, tiny_checkpoint

FAST_COMPILE = True
ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.py")
ENDINGS = ("npz", "json")
CFG = [dict(name="cfg", scale=2.0), dict(name="s2", weight=0.5, drop=0.4)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint.write(
        tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    )


def settings(checkpoint="", folder="", **fields):
    """A set of 22 images in three files, two per device and call."""
    given = dict(
        checkpoint=str(checkpoint),
        folder=str(folder),
        guidance=CFG,
        columns=("cfg+s2",),
        num_steps=2,
        num_samples=22,
        shard_size=8,
        batch_size=2,
    )
    return SampleConfig(**given | fields)


def write(config, share=(0, 1)):
    return sets.write_set(jobs.build_job(config), share)


def arrays(folder):
    parts = list(SampleSet(folder))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def refused(config, match):
    with pytest.raises(ValueError, match=match) as error:
        write(config)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """A set written in one go on all devices."""
    folder = tmp_path_factory.mktemp("set") / "whole"
    assert write(settings(checkpoint, folder))
    return folder


def test_a_set_holds_what_the_sampler_gives(checkpoint, whole):
    found = arrays(whole)
    np.testing.assert_array_equal(found["numbers"], np.arange(22))
    np.testing.assert_array_equal(found["labels"], np.arange(22) % 3)
    assert found["images"].shape == (22, 8, 8, 1)
    assert found["images"].dtype == np.uint8
    job = jobs.build_job(settings(checkpoint, whole))
    ((title, chain),) = job.columns.items()
    labels = jax.numpy.asarray(found["labels"])
    numbers = jax.numpy.asarray(found["numbers"])
    x0, _ = jobs.draw(job, chain, job.network, job.networks, labels, numbers)
    levels = np.clip(np.rint((np.asarray(x0) + 1) * 127.5), 0, 255)
    assert np.abs(levels - found["images"]).max() <= 1
    assert (levels == found["images"]).mean() > 0.99
    assert set(found["nfe"].tolist()) == {job.costs()[title].nfe}


def test_neither_devices_nor_a_restart_changes_a_bit(
    checkpoint, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "three"
    config = settings(checkpoint, folder)
    assert not write(config, (1, 2))
    first = (folder / "samples-00001-of-00003.npz").stat().st_mtime_ns
    devices = jax.local_devices()[:3]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert write(config)
    assert (folder / "samples-00001-of-00003.npz").stat().st_mtime_ns == first
    for name, found in arrays(folder).items():
        np.testing.assert_array_equal(found, arrays(whole)[name], err_msg=name)


def test_a_damaged_file_is_made_again(checkpoint, whole, tmp_path):
    folder = tmp_path / "set"
    config = settings(checkpoint, folder)
    assert write(config)
    file = folder / "samples-00002-of-00003.npz"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"need {len(content)} bytes in {file.name}"):
        SampleSet(folder)
    file.write_bytes(content[:200] + b"x" + content[201:])
    with pytest.raises(ValueError, match="crc32"):
        SampleSet(folder).verify()
    assert write(config)
    SampleSet(folder).verify()
    np.testing.assert_array_equal(arrays(folder)["images"], arrays(whole)["images"])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (dict(seed=1), "need the seed that the folder was begun with, got seed=1"),
        (dict(num_samples=21), "need the count that the folder was begun with"),
        (dict(columns=("none", "cfg")), "need one column for a set of samples"),
        (dict(label_order="sorted"), "label_order.*Did you mean"),
        (dict(rounding="up"), "rounding"),
        (dict(shard_size=0), "need shard_size >= 1, got shard_size=0"),
        (dict(num_samples=-1), "need num_samples >= 0, got num_samples=-1"),
    ],
)
def test_mistakes_are_named(checkpoint, whole, fields, match):
    refused(settings(checkpoint, whole, **fields), match)


def test_other_weights_are_another_set(whole, tmp_path):
    other = tiny_checkpoint.write(tmp_path / "other.safetensors", seed=1)
    refused(settings(other, whole), "need the crc32 that the folder was begun with")


def test_an_unfinished_set_is_not_read(checkpoint, tmp_path):
    assert not write(settings(checkpoint, tmp_path), (0, 2))
    with pytest.raises(ValueError, match="python -m jaxguide.sample"):
        SampleSet(tmp_path)


def test_random_labels_are_drawn_evenly_and_by_seed():
    config = SampleConfig(num_samples=3000, label_order="random")
    drawn = sets.set_labels(config, [2, 5, 7])
    counts = [int((drawn == label).sum()) for label in (2, 5, 7)]
    assert sum(counts) == 3000 and min(counts) > 900
    np.testing.assert_array_equal(drawn, sets.set_labels(config, [2, 5, 7]))


def test_rounding_of_both_protocols():
    x = np.linspace(-1.2, 1.2, 4001).astype(np.float32)
    nearest = np.asarray(sets.to_uint8(jax.numpy.asarray(x), "nearest"))
    # DiT's script: clip(127.5 x + 128) cut to an integer.
    np.testing.assert_array_equal(
        nearest, np.clip(127.5 * x + 128, 0, 255).astype(np.uint8)
    )
    floor = np.asarray(sets.to_uint8(jax.numpy.asarray(x), "floor"))
    # torchvision's to_pil_image of (x + 1) / 2: times 255, cut to an integer.
    unit = np.clip((x.astype(np.float64) + 1) / 2, 0, 1)
    wanted = np.floor(unit * 255 + 1e-4)
    assert np.abs(floor - wanted).max() == 0
    inside = np.abs(x) < 1
    darker = nearest[inside].astype(float) - floor[inside]
    assert 0.45 < darker.mean() < 0.55


def test_the_command_line_writes_pictures_and_the_adm_file(
    checkpoint, tmp_path, monkeypatch, capsys
):
    words = ["num_samples=9", "shard_size=4", "adm_file=True", "columns=('cfg',)"]
    words += [f"checkpoint={checkpoint}", f"folder={tmp_path}", "batch_size=1"]
    config = [f"--config.{word}" for word in words]
    monkeypatch.setattr(sys, "argv", ["sample.py", f"--config={DEMO}:tiny", *config])
    sample.main()
    printed = capsys.readouterr()
    assert "9 of 2 classes, balanced" in printed.out
    assert "9 images in samples-*.npz, grid.png, samples.npz" in printed.out
    assert "step 2/2" in printed.err or "step 3/3" in printed.err
    with np.load(tmp_path / "samples.npz") as adm:
        assert adm["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(adm["arr_0"], arrays(tmp_path)["images"])
        np.testing.assert_array_equal(adm["arr_1"], np.arange(9) % 2)
    plan = json.loads((tmp_path / "manifest.json").read_text())
    assert plan["num_steps"] == 2 and plan["count"] == 9


@pytest.mark.exhaustive  # counted evaluations: test_adaptive
def test_adaptive_solvers_count_their_evaluations(checkpoint, tmp_path):
    config = settings(
        checkpoint,
        tmp_path,
        sampler="dopri5(rtol=1e-2, atol=1e-2)",
        guidance=CFG[:1],
        columns=("cfg",),
        num_samples=5,
    )
    job = jobs.build_job(config)
    assert job.costs() == {} and "NFE not known before" in job.describe()
    assert write(config)
    nfe = arrays(tmp_path)["nfe"]
    assert nfe.min() >= 14 and set(nfe % 2) == {0}  # 2 branches, 6 stages + 1
    with pytest.raises(ValueError, match="need a sampler that walks the grid"):
        build.parse_sampler("recurrent(sampler='dopri5', repeats=2)")
    with pytest.raises(ValueError, match="need a sampler that walks the grid"):
        job.fixed()


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    """A checkpoint of latents, and an autoencoder that doubles the edge."""
    folder = tmp_path_factory.mktemp("latent")
    model = dataclasses.replace(
        tiny_checkpoint.MODEL, channels=4, image_size=4, patch=2
    )
    weights = tiny_checkpoint.write(folder / "weights.safetensors", model=model)
    architecture = TinyAutoencoderConfig(4, 4, (0, 1), (1, 0))
    params = tiny_autoencoder.init(architecture, jax.random.key(0))
    file = folder / "autoencoder.safetensors"
    save_autoencoder(file, Autoencoder(architecture, params, 0.5, 0.1))
    return dict(checkpoint=weights, autoencoder=str(file), guidance=CFG[:1])


@pytest.mark.exhaustive  # decoding: tests/models
def test_latents_are_decoded_few_at_a_time(latent, tmp_path):
    config = settings(
        folder=tmp_path, columns=("cfg",), num_samples=5, decode_batch=1, **latent
    )
    job = jobs.build_job(config)
    assert write(config)
    found = arrays(tmp_path)
    assert found["images"].shape == (5, 8, 8, 3)
    labels, numbers = (jax.numpy.asarray(found[n]) for n in ("labels", "numbers"))
    chain = job.columns["cfg"]
    x0, _ = jobs.draw(job, chain, job.network, job.networks, labels, numbers)
    images = decode_latents(load_autoencoder(latent["autoencoder"]), x0)
    apart = np.abs(columns.decoded(job, np.asarray(x0)) - images)
    assert apart.max() < 1e-5
    levels = np.asarray(sets.to_uint8(images, "nearest")).astype(int)
    assert np.abs(levels - found["images"]).max() <= 1
    assert images.std() > 0.05


def test_latents_without_an_autoencoder_are_a_picture_only(latent, tmp_path):
    config = settings(folder=tmp_path, columns=("cfg",), **latent | {"autoencoder": ""})
    refused(config, "need an autoencoder for latents of 4 channels")
    sheet = {"latents": np.zeros((1, 2, 4, 4, 4), np.float32)}
    sheets.write_sheet(tmp_path / "grid.png", sheet, ["row"])
    assert (tmp_path / "grid.png").is_file()


def test_published_channels_come_with_the_checkpoint(checkpoint):
    config = settings(checkpoint, "unused")
    weights = build.build_weights(str(checkpoint), "float32")
    chain = build.build_guidance(CFG[:1])
    published = weights._replace(guided_channels=3)
    lengths = [
        len(build.with_channels(chain, changed, published).parts)
        for changed in (
            config,
            settings(checkpoint, "unused", guided_channels=0),
            settings(checkpoint, "unused", guided_channels=1),
        )
    ]
    assert lengths == [2, 1, 2]
    none = build.build_guidance([])
    assert not build.with_channels(none, config, published).parts
    assert build.with_channels(chain, config, weights) == chain


@pytest.mark.exhaustive
def test_two_processes_with_other_devices_write_the_same_set(checkpoint, tmp_path):
    words = ["num_samples=22", "shard_size=8", "batch_size=2", "num_steps=2"]
    words += [f"checkpoint={checkpoint}", f"folder={tmp_path}", "labels=all"]
    words += ["columns=('cfg+s2',)", "seed=0", "zoom=2"]
    words += ["guidance[0].scale=2.0", "guidance[2].weight=0.5", "guidance[2].drop=0.4"]
    started = []
    for index, devices in enumerate((1, 2)):
        env = quick.environment(devices)
        more = [f"--config.{word}" for word in words]
        more += ["--num_processes=2", f"--process_id={index}"]
        command = [sys.executable, "-m", "jaxguide.sample", f"--config={DEMO}:tiny"]
        started.append(
            subprocess.Popen(
                command + more, env=env, stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
        )
    printed = [process.communicate(timeout=500)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    alone = tmp_path / "alone"
    again = [f"--config.{word}" for word in words]
    again[again.index(f"--config.folder={tmp_path}")] = f"--config.folder={alone}"
    command = [sys.executable, "-m", "jaxguide.sample", f"--config={DEMO}:tiny"]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run(command + again, env=env, check=True, cwd=ROOT)
    for name, found in arrays(tmp_path).items():
        np.testing.assert_array_equal(found, arrays(alone)[name], err_msg=name)


def made_up(value, number):
    """In the place of `draw`: gray images, `value` in image `number`."""

    def draw(job, chain, network, networks, labels, numbers, count):
        del job, chain, network, networks
        level = jnp.where(numbers == number, value, 0.0)
        x0 = jnp.zeros((len(labels), 8, 8, 1)).at[:, 3, 4, 0].set(level)
        return x0, jnp.ones_like(labels)

    return draw


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_set_stops_before_a_file_with_an_image_of_no_numbers(
    checkpoint, tmp_path, monkeypatch, value
):
    monkeypatch.setattr(sets, "draw", made_up(value, 10))
    with pytest.raises(NonFiniteError, match="first in image 10 of label 1"):
        write(settings(checkpoint, tmp_path))
    assert [path.name for path in tmp_path.glob("samples-*.npz")] == [
        "samples-00000-of-00003.npz"
    ]
    assert not (tmp_path / "manifest.json").exists()
    # The next run carries on with what was whole.
    before = (tmp_path / "samples-00000-of-00003.npz").stat().st_mtime_ns
    monkeypatch.setattr(sets, "draw", made_up(0.5, 10))
    assert write(settings(checkpoint, tmp_path))
    assert before == (tmp_path / "samples-00000-of-00003.npz").stat().st_mtime_ns
    assert arrays(tmp_path)["images"][10, 3, 4] == 191


def test_images_that_fill_up_the_last_call_are_not_looked_at_twice(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(sets, "draw", made_up(np.nan, 21))
    with pytest.raises(NonFiniteError, match="in 1 of 6, first in image 21"):
        write(settings(checkpoint, tmp_path))


def test_calls_run_over_the_ends_of_files(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sets, "draw", made_up(0.5, 10))
    # Eight devices, groups of 4: 3 in each file of 9 images, the last one of 1 image.
    fields = dict(shard_size=9, batch_size=4)
    assert write(settings(checkpoint, tmp_path, **fields))
    assert "step 1/1," in capsys.readouterr().err  # a call per file would be three
    assert [len(part["images"]) for part in SampleSet(tmp_path)] == [9, 9, 4]
    assert arrays(tmp_path)["images"][10, 3, 4] == 191
    np.testing.assert_array_equal(arrays(tmp_path)["numbers"], np.arange(22))
    np.testing.assert_array_equal(SampleSet(tmp_path).labels(), np.arange(22) % 3)


def test_a_file_that_cannot_be_written_stops_the_run(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "draw", made_up(0.5, 10))
    savez, full = np.savez, OSError(errno.ENOSPC, "No space left on device")

    def save(file, *, numbers, **arrays):
        if numbers[0] == 8:
            raise full
        savez(file, numbers=numbers, **arrays)

    monkeypatch.setattr(np, "savez", save)
    with pytest.raises(UnwritableError, match="samples-00001-of-00003.npz"):
        write(settings(checkpoint, tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"plan.json"} | {f"samples-00000-of-00003.{e}" for e in ENDINGS}


def test_a_set_is_not_carried_on_with_another_function(checkpoint, tmp_path):
    def plan(scale):
        guidance = [dict(name="cfg", scale=scale), CFG[1]]
        return sets.set_plan(jobs.build_job(settings(checkpoint, guidance=guidance)))

    def made(number):
        return lambda t: number + 0 * t

    assert plan(made(2.0)) == plan(made(2.0)) != plan(made(3.0))
    assert "code" not in plan(2.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("count", [0, 6])
def test_a_broken_network_makes_neither_picture_nor_set(
    checkpoint, tmp_path, monkeypatch, count
):
    def broken(config):
        job = build_job(config)
        nan = jax.tree.map(lambda leaf: leaf * np.nan, job.network.predict)
        return dataclasses.replace(
            job, network=dataclasses.replace(job.network, predict=nan)
        )

    build_job = jobs.build_job
    monkeypatch.setattr(jobs, "build_job", broken)
    with pytest.raises(NonFiniteError, match="sample: need finite images"):
        sample.run(settings(checkpoint, tmp_path, num_samples=count))
    assert not {path.name for path in tmp_path.iterdir()} - {"plan.json"}


def test_a_damaged_file_of_a_set_is_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    path = tmp_path / "set" / "samples-00001-of-00003.npz"
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="SampleSet: need .*samples-00001-of-00003"):
        list(SampleSet(tmp_path / "set"))


def test_records_are_strict_json():
    record = {"a": np.float32(1.5), "b": [math.nan, -math.inf], 3: np.arange(2)}
    record["f"] = sets.to_uint8
    text = columns.as_json(record)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads(text, parse_constant=refuse)
    wanted = {"a": 1.5, "b": [None, "-inf"], "3": [0, 1]}
    assert found == {**wanted, "f": "jaxguide.sample.sets:to_uint8"}
