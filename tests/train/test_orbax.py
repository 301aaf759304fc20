"""States come back from disk as they were, or not at all."""

import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxguide.train import Checkpoints
from jaxguide.train.checkpoints.sums import bit_sums

FAST_COMPILE = True


class State(NamedTuple):
    step: jax.Array
    tree: dict


def state(value):
    return State(jnp.int32(value), {"a": jnp.full((2, 3), value, jnp.float32)})


def test_the_newest_state_and_its_meta_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative folder must work
    with Checkpoints("run", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {"step": step, "name": "x"})
    with Checkpoints("run") as checkpoints:
        assert checkpoints.latest_step() == 3
        restored, meta = checkpoints.restore(jax.eval_shape(lambda: state(0)))
        older, _ = checkpoints.restore(state(0), step=2)
        with pytest.raises(ValueError, match="need a saved step, got step=1"):
            checkpoints.restore(state(0), step=1)
    assert isinstance(restored, State)
    assert meta == {"step": 3, "name": "x"}
    np.testing.assert_array_equal(restored.tree["a"], state(3).tree["a"])
    assert int(older.step) == 2


def test_a_state_may_be_donated_right_after_saving(tmp_path):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda a: a * 0, s), donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        live = State(jnp.int32(5), {"a": jnp.full((500, 500), 5.0)})
        checkpoints.save(5, live, {})
        jax.block_until_ready(overwrite(live))
    with Checkpoints(tmp_path) as checkpoints:
        like = State(jnp.int32(0), {"a": jnp.zeros((500, 500))})
        restored, _ = checkpoints.restore(like)
    assert np.all(np.asarray(restored.tree["a"]) == 5)


def test_an_empty_folder_has_no_latest_step(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(ValueError, match="got step=None"):
            checkpoints.restore(state(0))


def test_keeping_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="need keep >= 1, got keep=0"):
        Checkpoints(tmp_path, keep=0)


def on_devices(count, tree, spec):
    """The arrays of a tree, cut over the first devices."""
    mesh = jax.make_mesh(
        *((count,), ("all",)),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:count],
    )
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))


def test_a_state_cut_over_eight_devices_comes_back_on_two_cut_otherwise(tmp_path):
    values = np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32)
    eight = on_devices(8, {"a": values}, ("all",))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, eight, {})
    two = on_devices(2, {"a": np.zeros_like(values)}, (None, "all"))
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(two)
    np.testing.assert_array_equal(restored["a"], values)
    assert restored["a"].sharding == two["a"].sharding
    assert bit_sums(eight) == bit_sums(two | restored) == bit_sums({"a": values})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool"])
def test_a_sum_sees_every_change_of_a_value_and_of_its_place(dtype):
    values = jnp.arange(24).reshape(2, 3, 4) % 2
    tree = values.astype(dtype)
    changed = values.at[1, 1, 1].add(-1).astype(dtype)
    moved = jnp.flip(tree, axis=2)
    assert len({bit_sums(t)[0] for t in (tree, changed, moved)}) == 3
    bits = np.asarray(values).ravel().astype(np.uint64)
    if dtype in ("int8", "bool"):
        expected = int((bits * (2 * np.arange(24) + 1)).sum())
        assert bit_sums(tree) == [expected]


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(file):
    """The same length, other bytes in the middle."""
    middle = file.stat().st_size // 2
    with file.open("r+b") as stream:
        stream.seek(middle)
        stream.write(b"\0" * 64)


def largest(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def half(folder):
    shutil.rmtree(folder / "state" / "d")


DAMAGES = {
    "array cut": lambda folder: cut(largest(folder)),
    "array gone": lambda folder: largest(folder).unlink(),
    "array with other bytes": lambda folder: overwrite(largest(folder)),
    "index empty": lambda folder: (folder / "state/manifest.ocdbt").write_bytes(b""),
    "names cut": lambda folder: cut(folder / "state" / "_METADATA"),
    "facts cut": lambda folder: cut(folder / "meta" / "metadata"),
    "facts gone": lambda folder: shutil.rmtree(folder / "meta"),
    "half deleted": half,
    "arrays gone": lambda folder: shutil.rmtree(folder / "state"),
    "all files gone": lambda folder: [shutil.rmtree(p) for p in folder.glob("*/")],
}


def big(value):
    return {"a": value * jnp.arange(50_000.0), "b": jnp.full(3, value)}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            damage, id=name, marks=[pytest.mark.exhaustive] if index % 3 else []
        )
        for index, (name, damage) in enumerate(DAMAGES.items())
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_kept(tmp_path, damage, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, big(step), {"step": step})
    damage(tmp_path / "2")
    capfd.readouterr()
    with Checkpoints(tmp_path) as checkpoints:
        restored, meta = checkpoints.restore(big(0))
        told = capfd.readouterr().err
        checkpoints.save(2, big(2), {"step": 2})
    assert told.count("\n") == 1, told
    assert "cannot read step 2 (" in told and "going back to step 1" in told
    assert meta == {"step": 1}
    np.testing.assert_array_equal(restored["a"], big(1)["a"])
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "2.unreadable"]
    with Checkpoints(tmp_path) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(big(0))[0]["b"], 2)


def test_facts_of_another_experiment_are_refused_before_the_arrays_are_read(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, big(1), {"width": 8, "scales": (1.0, 2.0)})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(big(0), expect={"scales": (1.0, 2.0)})
        line = "need the width of the checkpoint at step 1, got width=9 instead of 8"
        with pytest.raises(ValueError, match=line):
            checkpoints.restore({"other": jnp.zeros(2)}, expect={"width": 9})
    assert os.listdir(tmp_path) == ["1"]


def test_the_best_are_kept_beside_the_newest(tmp_path):
    numbers = {1: 0.3, 2: 0.1, 3: 0.2, 4: None, 5: float("nan"), 6: 0.4}
    with Checkpoints(tmp_path, keep=2, keep_best=2, best_by="error") as checkpoints:
        assert checkpoints.best_step() is None
        for step, error in numbers.items():
            metrics = {} if error is None else {"error": error}
            checkpoints.save(step, state(step), {}, metrics)
    with Checkpoints(tmp_path, keep=1, keep_best=1, best_by="error") as checkpoints:
        assert checkpoints.steps() == [2, 3, 5, 6]
        assert checkpoints.best_step() == 2
        checkpoints.save(7, state(7), {}, {"error": 0.1})
        assert checkpoints.best_step() == 7, "the newest of equal ones"
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [7]


def test_a_negative_number_of_best_ones_is_refused(tmp_path):
    with pytest.raises(ValueError, match="need keep_best >= 0, got keep_best=-1"):
        Checkpoints(tmp_path, keep_best=-1)


def test_a_file_in_the_way_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="got folder='.*file/run': Not a directory. Make"):
        Checkpoints(tmp_path / "file" / "run")
