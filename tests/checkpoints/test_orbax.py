"""States come back from disk as they were."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.checkpoints import Checkpoints


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
