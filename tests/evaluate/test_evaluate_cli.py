"""`python -m jaxguide.evaluate`: the table, the record, mistakes, two processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxguide.errors import InputError
from jaxguide.evaluate import __main__ as evaluate, config as evaluate_config, jobs
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.evaluate.protocols import ADM, TORCH_FIDELITY
from jaxguide.evaluate.reference import Reference, write_statistics
from jaxguide.runtime.hosts import Hosts
from tests import quick, tiny_checkpoint
from tests.evaluate import toy_network
from tests.train.test_hosts import free_port

FAST_COMPILE = True
ROOT = Path(__file__).parents[2]
NETWORK = "tests.evaluate.toy_network:network"
ALL = "fd,kd,sfid,is,precision,recall,density,coverage"


def made(count, seed=0, size=8, channels=3):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, channels))
    return (images * rng.random((count, 1, 1, channels))).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of images, real ones, and ones that do not fit."""
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "one.npz", arr_0=made(90, 1))
    np.savez(folder / "two.npz", arr_0=made(100, 2))
    np.savez(folder / "real.npz", arr_0=made(150, 3))
    np.savez(folder / "few.npz", arr_0=made(5, 4))
    np.savez(folder / "large.npz", arr_0=made(90, 5, size=10))
    return folder


def settings(folder, out, **fields):
    given = dict(
        samples=f"{folder}/one.npz",
        reference=f"{folder}/real.npz",
        metrics="fd,kd",
        network=NETWORK,
        shard_size=40,
        cache=str(out / "cache"),
        folder=str(out),
    )
    return EvaluateConfig(**given | fields)


def judged(config):
    """The record that the command line writes."""
    evaluate.run(config)
    text = (Path(config.folder) / "evaluation.json").read_text(encoding="utf-8")
    return json.loads(text)


def test_two_sets_with_spread_floor_and_everything_to_compare(folder, tmp_path, capsys):
    both = f"{folder}/one.npz,{folder}/two.npz"
    found = judged(
        settings(
            folder,
            tmp_path,
            samples=both,
            metrics=ALL.replace("sfid,", ""),
            save_reference=str(tmp_path / "real_stats.npz"),
        )
    )
    assert [one["count"] for one in found["samples"]] == [90, 100]
    assert found["reference"]["count"] == 150 and found["floor"]["count"] == 75
    assert found["protocol"]["name"] == "plain"
    assert found["network"].startswith("toy-")
    assert found["versions"]["jax"]
    distances = [one["measures"]["FD-toy"] for one in found["samples"]]
    assert all(one["value"] > 0 and one["spread"] > 0 for one in distances)
    mean = np.mean([one["value"] for one in distances])
    np.testing.assert_allclose(found["over_sets"]["FD-toy"]["value"], mean)
    assert set(found["floor"]["measures"]) == {
        *("FD-toy", "KD-toy", "precision", "recall", "density", "coverage")
    }
    printed = capsys.readouterr().out
    for text in ("FD-toy", "IS-toy", "floor, N = 75", "N = 90", "mean of 2 sets"):
        assert text in printed
    assert "FID" not in printed and "KID" not in printed
    # The same distance from the statistics that were written.
    again = judged(
        settings(
            folder,
            tmp_path / "again",
            samples=both,
            metrics="fd",
            reference=str(tmp_path / "real_stats.npz"),
            cache=str(tmp_path / "cache"),
        )
    )
    for one, other in zip(again["samples"], distances, strict=True):
        np.testing.assert_allclose(one["measures"]["FD-toy"]["value"], other["value"])
    assert again["floor"]["count"] == 0


def test_a_config_of_the_sampler_is_sampled_first(tmp_path):
    np.savez(tmp_path / "real.npz", arr_0=made(90, channels=1))
    weights = tiny_checkpoint.write(tmp_path / "tiny.safetensors")
    (tmp_path / "sampling.py").write_text(
        "from jaxguide.sample.build import SampleConfig\n"
        "def get_config(arg=''):\n"
        f"    return SampleConfig(checkpoint={weights!r}, num_steps=1, batch_size=2)\n"
    )
    found = judged(
        EvaluateConfig(
            samples=f"{tmp_path}/sampling.py",
            reference=f"{tmp_path}/real.npz",
            metrics="kd",
            network=NETWORK,
            num_samples=48,
            num_reference=80,
            floor_seeds=1,
            cache=str(tmp_path / "cache"),
            folder=str(tmp_path / "out"),
        )
    )
    assert found["samples"][0]["count"] == 48 and found["reference"]["count"] == 80
    assert found["samples"][0]["measures"]["KD-toy"]["value"] > 0
    assert (tmp_path / "out" / "samples-0" / "manifest.json").is_file()


def test_protocols_belong_to_inception():
    inception = EvaluateConfig(network="inception", weights="file.pth")
    assert evaluate_config.build_protocol(inception) == ADM
    inception.protocol = "torch-fidelity"
    assert evaluate_config.build_protocol(inception) == TORCH_FIDELITY
    inception.metrics = "fid,sfid,is,kid,precision"
    assert evaluate_config.build_names(inception) == inception.metrics.split(",")
    inception.protocol = "plain"
    with pytest.raises(ValueError, match="need a protocol in .*'torch-fidelity'"):
        evaluate_config.build_protocol(inception)
    with pytest.raises(ValueError, match="need a protocol in .'plain'."):
        evaluate_config.build_protocol(EvaluateConfig(protocol="adm"))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            dict(metrics="fid", network="efficientnet_lite0"),
            "need Inception's weights.*pt_inception.*--config.metrics=fd,kd",
        ),
        (dict(metrics="fid"), "need Inception's weights for 'fid', got network='toy'"),
        (dict(network="inception"), "got .*weights=''. Download"),
        (dict(network="os:getcwd"), "need a function that computes, got"),
        (dict(network="math:floor"), "need x, got"),
        (dict(metrics="fed"), "Did you mean 'fd'?"),
        (dict(metrics=""), "got name=''"),
        (dict(samples=""), "need images, got samples=''"),
        (dict(samples="no.npz"), "need an .npz, a folder or a data set, got samples"),
        (dict(samples="no.py"), "need an existing file, got --config.samples=.no.py."),
        (dict(reference="digitz"), "Did you mean 'digits'?"),
        (dict(reference="made_latents"), "got reference='made_latents', which holds"),
        (dict(samples="{folder}/few.npz"), "need more images than features, 5,"),
        (dict(samples="{folder}/large.npz"), "need images of one size, got .10, 10"),
        (dict(num_samples=91), "need 91 images, got samples=.* with 90"),
        (dict(reference="{folder}/stats.npz"), "need real images for kd, got"),
        (dict(num_samples=39), "need 40 images or more for KD-toy, got 39 in"),
        (
            dict(
                metrics="sfid",
                reference="{folder}/stats.npz",
                network="tests.evaluate.toy_network:as_inception",
            ),
            "need mu_s and sigma_s for sfid",
        ),
    ],
)
def test_mistakes_are_named_before_anything_runs(folder, tmp_path, fields, line):
    np.savez(folder / "stats.npz", mu=np.zeros(5), sigma=np.eye(5))
    fields = {
        name: value.format(folder=folder) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    with pytest.raises(ValueError, match=line) as error:
        jobs.build_job(settings(folder, tmp_path, **fields))
    assert "\n" not in str(error.value)


def test_adms_file_holds_statistics_and_the_images_for_precision(folder, tmp_path):
    network = toy_network.network()
    real = Reference.of(made(150, 3), network, cache=tmp_path, spatial=True)
    virtual = tmp_path / "VIRTUAL_toy.npz"
    write_statistics(virtual, real, made(60, 3))
    fields = dict(
        metrics="fid,sfid,precision",
        network="tests.evaluate.toy_network:as_inception",
    )
    found = judged(settings(folder, tmp_path, reference=str(virtual), **fields))
    direct = judged(settings(folder, tmp_path, **fields))
    one, other = (r["samples"][0]["measures"] for r in (found, direct))
    for name in ("FID", "sFID"):
        np.testing.assert_allclose(one[name]["value"], other[name]["value"], rtol=1e-9)
    counts = [report["floor"]["count"] for report in (found, direct)]
    assert counts == [30, 75], "60 real images, not 150"


def test_hosts_without_a_connection_share_a_folder(folder, tmp_path, capsys):
    for index in (1, 0):
        evaluate.run(settings(folder, tmp_path), Hosts(index, count=2))
        printed = capsys.readouterr().out
        assert ("FD-toy  " in printed) == (index == 0), "whoever ends last"
        record = tmp_path / "evaluation.json"
        assert record.is_file() == (index == 0)
        assert index == 0 or "the features of host 1 are written" in printed
    found = json.loads(record.read_text(encoding="utf-8"))
    alone = judged(settings(folder, tmp_path / "alone"))
    for name, value in alone["samples"][0]["measures"].items():
        together = found["samples"][0]["measures"][name]["value"]
        np.testing.assert_allclose(together, value["value"], rtol=1e-9)


CONFIG = """
from jaxguide.evaluate.config import EvaluateConfig
def get_config(arg=""):
    return EvaluateConfig(
        samples={samples!r}, reference={reference!r}, metrics={metrics!r},
        network={network!r}, shard_size=20, cache={cache!r}, folder={out!r},
    )
"""


def start(config, *words):
    """One process of the command line."""
    env = quick.environment(devices=2) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jaxguide.evaluate", f"--config={config}", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def finish(processes):
    try:
        return [(*one.communicate(timeout=300), one.returncode) for one in processes]
    finally:
        for process in processes:
            process.kill()


def config_file(folder, out):
    out.mkdir()
    text = CONFIG.format(
        samples=f"{folder}/one.npz",
        reference=f"{folder}/real.npz",
        metrics=ALL.replace("sfid,", ""),
        network=NETWORK,
        cache=str(out / "cache"),
        out=str(out),
    )
    (out / "config.py").write_text(text, encoding="utf-8")
    return out / "config.py"


@pytest.mark.exhaustive
def test_two_processes_equal_one_and_mistakes_exit_with_2(folder, tmp_path):
    alone = config_file(folder, tmp_path / "alone")
    ((printed, errors, code),) = finish([start(alone)])
    assert code == 0, errors
    assert "FD-toy" in printed
    two = config_file(folder, tmp_path / "two")
    hosts = [
        f"--coordinator=127.0.0.1:{free_port()}",
        "--num_processes=2",
    ]
    ended = finish([start(two, *hosts, f"--process_id={index}") for index in (0, 1)])
    assert [code for *_, code in ended] == [0, 0], ended
    assert "FD-toy" in ended[0][0] and "FD-toy" not in ended[1][0]
    one, other = (
        json.loads((file.parent / "evaluation.json").read_text(encoding="utf-8"))
        for file in (alone, two)
    )
    for name, found in one["samples"][0]["measures"].items():
        value = other["samples"][0]["measures"][name]["value"]
        np.testing.assert_allclose(value, found["value"], rtol=1e-6, err_msg=name)
    parts = [file.name for file in (two.parent / "cache").rglob("moments-pool-*")]
    assert sorted(parts) == sorted(2 * [f"moments-pool-{i}-of-2.npz" for i in (0, 1)])
    ((_, errors, code),) = finish([start(alone, "--config.metrics=fid")])
    assert code == 2 and len(errors.strip().splitlines()) == 1
    assert "need Inception's weights" in errors


@pytest.mark.parametrize(
    "field",
    [
        {"floor_seeds": -1},
        {"blocks": -1},
        {"blocks": 1},
        {"batch_size": 0},
        {"shard_size": 0},
        {"num_samples": -5},
        {"num_reference": -5},
        {"save_reference": "stats.txt"},
        {"metrics": "fd,nosuch"},
        {"metrics": ""},
        {"protocol": "nosuch"},
    ],
    ids=str,
)
def test_numbers_and_names_are_judged_before_any_work(folder, tmp_path, field):
    config = settings(folder, tmp_path / "out", **field)
    with pytest.raises(InputError, match=r"need .*, got ") as caught:
        jobs.build_job(config)
    (value,) = field.values()
    assert repr(value).strip("'").split(",")[-1] in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_lies_there_is_judged_before_anything_is_sampled(folder, tmp_path):
    (tmp_path / "sampling.py").write_text("raise AssertionError('was run')")
    samples = f"{tmp_path}/sampling.py,{folder}/none.npz"
    with pytest.raises(InputError, match="none.npz'?, which does not exist"):
        jobs.build_job(settings(folder, tmp_path, samples=samples))


def test_damaged_files_are_named_in_one_line(folder, tmp_path):
    (tmp_path / "cut.npz").write_bytes((folder / "real.npz").read_bytes()[:-90])
    for field in ("samples", "reference"):
        with pytest.raises(InputError, match="need a whole .npz file, .*cut.npz"):
            jobs.build_job(settings(folder, tmp_path, **{field: f"{tmp_path}/cut.npz"}))
