"""A run carries on as what it was: what may change is said, all else is refused."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from jaxguide import data, train as training
from jaxguide.data.config import DataConfig
from jaxguide.errors import InputError
from jaxguide.train import checks, config, identity
from jaxguide.train.checkpoints import facts
from jaxguide.train.config import LossConfig, OptimizerConfig, TrainConfig
from tests.train.test_survival import experiment, loop, standard_promotion  # noqa: F401

FAST_COMPILE = True


def images(count=24, classes=3, seed=0):
    draw = np.random.default_rng(seed).integers
    labels = (np.arange(count) % classes).astype(np.int32)
    names = tuple("abcdefgh"[:classes])
    return data.Dataset(draw(0, 256, (count, 8, 8, 1), np.uint8), labels, names)


def darker(source):
    """One pixel of one image in the middle."""
    changed = source.images.copy()
    changed[11, 4, 4, 0] ^= 1
    return dataclasses.replace(source, images=changed)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of two steps on `images()`."""
    folder = tmp_path_factory.mktemp("begun")
    with jax.numpy_dtype_promotion("standard"):
        training.run(experiment(dataset=images(), flip=False), loop(folder, 2))
    return folder


def everything(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


CHANGES = {
    "fewer": (dict(dataset=images(20)), "data.examples=20 instead of 24"),
    "pixels": (dict(dataset=darker(images())), "data.contents="),
    "labels": (
        dict(dataset=dataclasses.replace(images(), labels=images().labels[::-1])),
        "data.contents=",
    ),
    "classes": (dict(dataset=images(classes=4)), "data.num_classes=4 instead of 3"),
    "flip": (dict(flip=True), "data.flip=True instead of False"),
    "ema": (dict(ema=(0.9,)), r"ema=\[0.9\] instead of \[0.9, 0.99\]"),
    "warm-up": (dict(ema_warmup=False), "ema_warmup=False instead of True"),
    "batch": (dict(batch_size=8), "batch_size=8 instead of 16"),
    "seed": (dict(seed=1), "seed=1 instead of 0"),
    "meta": (dict(meta={"name": "other"}), "name='other' instead of 'toy'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_with_both_values_and_changes_nothing(begun, name):
    changes, line = CHANGES[name]
    before = everything(begun)
    called = []
    with pytest.raises(InputError, match=line) as refused:
        training.run(
            experiment(**(dict(dataset=images(), flip=False) | changes)),
            loop(begun, 4),
            accepted=lambda: called.append(1),
        )
    assert "\n" not in str(refused.value) and "at step 2" in str(refused.value)
    assert everything(begun) == before and not called


def test_fewer_steps_than_are_done_are_refused(begun):
    with pytest.raises(InputError, match="need steps >= 2, .* got steps=1"):
        training.run(experiment(dataset=images(), flip=False), loop(begun, 1))


def test_what_may_change_is_said(tmp_path, capsys):
    training.run(experiment(settings={"steps": 1, "keep": 2}), loop(tmp_path, 1))
    capsys.readouterr()
    called = []
    training.run(
        experiment(settings={"steps": 2, "keep": 2}),
        loop(tmp_path, 2),
        accepted=lambda: called.append(1),
    )
    said = [line for line in capsys.readouterr().out.splitlines() if "change" in line]
    assert said == ["changed: steps is 2, it was 1"] and called == [1]


def test_facts_that_an_older_version_did_not_write_are_named():
    new = experiment().facts()
    old = {"name": "toy", "seed": 0, "log": []}
    facts.compare(old, new, 1)
    (line,) = facts.remarks(old, new, {"steps": 3})
    assert line.startswith("not compared, the checkpoint does not say: batch_size")
    with pytest.raises(InputError, match="seed=0 instead of 7"):
        facts.compare({"model": {}, "seed": 7}, new, 1)


def leaves(value, name=""):
    for field in dataclasses.fields(value):
        part, full = getattr(value, field.name), f"{name}{field.name}"
        if dataclasses.is_dataclass(part):
            yield from leaves(part, f"{full}.")
        else:
            yield full


def test_every_field_of_a_config_either_stays_or_may_change():
    found = config.run_facts(TrainConfig())
    assert {*found["meta"], *found["settings"]} == {*leaves(TrainConfig())}
    assert not found["meta"].keys() & found["settings"].keys()
    assert set(found["settings"]) == config.MAY_CHANGE
    assert {"optimizer.peak", "data.flip", "seed", "model.width"} <= {*found["meta"]}
    json.dumps(found)
    tuned = TrainConfig(loss=LossConfig(name="model_guidance", auto_weight=True))
    assert "evaluate_images" in config.run_facts(tuned)["meta"]


def test_files_tell_a_set_by_names_sizes_and_contents(tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            picture = Image.new("RGB", (8, 8), (i, 0, 0))
            picture.save(tmp_path / label / f"{i}.bmp")

    def found():
        return identity.describe(data.image_folder(tmp_path, size=8))

    first = found()
    (tmp_path / "b" / "1.bmp").touch()
    assert found() == first, "a copy on another disk is the same data"
    Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / "b" / "1.bmp")  # the same size
    second = found()
    (tmp_path / "b" / "1.bmp").rename(tmp_path / "b" / "1a.bmp")
    assert len({one["contents"] for one in (first, second, found())}) == 3


def test_any_other_source_is_known_by_some_examples():
    one, other = (data.made_latents(count=40, shape=(2, 2, 4), seed=s) for s in (0, 1))
    assert identity.describe(one) == identity.describe(one)
    assert identity.describe(one) != identity.describe(other)


WRONG = {
    "batch_size": 0,
    "accumulate": 0,
    "seed": -1,
    "ema": (),
    "flops": float("nan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_of_an_experiment_are_bounded(name):
    with pytest.raises(InputError, match=f"{name}.*got {name}="):
        experiment(**{name: WRONG[name]})
    with pytest.raises(InputError, match=r"got seed=4294967296"):
        experiment(seed=2**32)


def settings(**changes):
    small = config.tiny(TrainConfig(**changes))
    return dataclasses.replace(small, folder="unused")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(evaluate_every=-1), "need evaluate_every >= 0"),
        (dict(keep_best=-1), "need keep_best >= 0"),
        (dict(peak_flops=float("inf")), "need peak_flops >= 0"),
        (dict(best_by="nosuch"), "Did you mean 'loss'"),
        (dict(keep_best=1, best_by="eval_loss"), "got name='eval_loss'"),
        (dict(preview_classes=0), "need preview_classes >= 1"),
        (dict(evaluate_images=0), "need evaluate_images >= 1"),
        (dict(folder=" "), "need a folder of the run"),
    ],
)
def test_numbers_of_a_loop_are_bounded(changes, line):
    with pytest.raises(InputError, match=line):
        config.build_loop(dataclasses.replace(settings(), **changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(peak=float("inf")), "need a finite peak > 0"),
        (dict(peak=float("nan")), "need a finite peak > 0"),
        (dict(b2=2.0), r"need b2 in \[0, 1\), got b2=2.0"),
        (dict(clip=float("nan")), "need clip finite"),
        (dict(clip=-1.0), "need clip finite"),
        (dict(weight_decay=-0.1), "need weight_decay finite and >= 0"),
        (dict(warmup_steps=-1), "warmup_steps=-1"),
    ],
)
def test_numbers_of_an_optimizer_are_bounded(changes, line):
    with pytest.raises(InputError, match=line):
        config.build_optimizer(OptimizerConfig(**changes), steps=1000)


@pytest.mark.parametrize(
    "loss",
    [
        dict(label_drop=2.0),
        dict(name="model_guidance", weight=1.0),
        dict(name="model_guidance", start_step=-1),
        dict(name="model_guidance", t_lo=0.5, t_hi=0.5),
        dict(name="scale_aware_model_guidance", scales=(0.5, 1.0)),
        dict(name="mean_flow", flow_ratio=2.0),
    ],
    ids=str,
)
def test_what_a_loss_refuses_is_refused_before_anything_is_written(tmp_path, loss):
    run = settings(loss=LossConfig(**loss), data=DataConfig())
    run.model.width = 8
    with pytest.raises(InputError, match=": need .* got "):
        experiment = config.build_experiment(run, data.digits())
        checks.before_writing(experiment, loop(tmp_path / "run", 4))
    assert not (tmp_path / "run").exists()


class Damaged:
    """Digits, one of which is not finite."""

    def __init__(self, bad):
        self._whole, self._bad = data.digits(), bad

    def __len__(self):
        return len(self._whole)

    def __getattr__(self, name):
        return getattr(self._whole, name)

    def read(self, picked, **draws):
        x0, label = self._whole.read(picked, **draws)
        x0[picked == self._bad] = np.nan
        return x0, label


def test_data_that_are_not_finite_are_one_line(tmp_path):
    seed_0 = data.order.indices(len(data.digits()), 0, batch_size=16 * 4, seed=0)
    first, later = Damaged(seed_0[3]), Damaged(seed_0[16 * 3])
    with pytest.raises(FloatingPointError, match="need finite data, got 1 of 16"):
        training.run(experiment(dataset=first), loop(tmp_path / "a", 9))
    assert not (tmp_path / "a").exists()
    with pytest.raises(FloatingPointError, match="need finite data, got 1 of 16"):
        training.run(experiment(dataset=later), loop(tmp_path / "b", 9))
    with training.Checkpoints(tmp_path / "b" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [3], "what was learnt before is saved"


def test_a_run_that_fails_before_its_first_step_leaves_no_checkpoint(tmp_path):
    def loss(params, inputs):
        del params
        return inputs.batch[1].sum()

    with pytest.raises(InputError, match="need a loss that returns one number per"):
        training.run(experiment(loss=loss), loop(tmp_path / "run", 4))
    assert not (tmp_path / "run").exists()

    def update(*_):
        raise RuntimeError("no such state")

    broken = optax.GradientTransformation(lambda params: (), update)
    with pytest.raises(RuntimeError, match="no such state"):
        training.run(experiment(optimizer=broken), loop(tmp_path / "run", 4))
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
    training.run(experiment(), loop(tmp_path / "run", 1))


@pytest.mark.parametrize("name", ["samples", "weights.safetensors", "metrics.jsonl"])
def test_what_is_in_the_way_is_found_before_training(tmp_path, name):
    if name == "samples":
        (tmp_path / name).write_text("a file")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=rf"need files that can be written, got .*{name}"):
        training.run(experiment(), loop(tmp_path, 4))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_garbage_in_the_log_is_kept_aside_and_the_run_carries_on(tmp_path, capsys):
    training.run(experiment(), loop(tmp_path, 2, log_every=1))
    log = tmp_path / "metrics.jsonl"
    good = log.read_bytes()
    garbage = [b"\x00\xff\xfe\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": "x"}\n']
    log.write_bytes(b"".join(garbage) + good + b'{"step": 3, "lo')
    capsys.readouterr()
    training.run(experiment(), loop(tmp_path, 3, log_every=1))
    assert "5 line(s) of" in capsys.readouterr().err
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    aside = (tmp_path / "metrics.jsonl.damaged").read_bytes()
    assert aside == b"".join(garbage) + b'{"step": 3, "lo'


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path):
    training.run(experiment(), loop(tmp_path, 2, log_every=1))
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(log.read_bytes().rstrip(b"\n"))
    training.run(experiment(), loop(tmp_path, 3, log_every=1))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_a_signal_before_the_first_step_ends_the_run_before_it(tmp_path):
    with training.Stop() as stop:
        stop.code = training.PREEMPTED
        state = training.run(experiment(), loop(tmp_path, 3), stop=stop)
    assert int(state.step) == 0
    assert not list((tmp_path / "checkpoints").glob("*"))
