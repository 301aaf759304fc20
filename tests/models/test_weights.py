"""Weight files: everything that sampling needs, in half precision."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxguide.models import (
    DiTConfig,
    Weights,
    init,
    load_weights,
    parameter_count,
    save_weights,
)
from tests.drawn import drawn

MODEL = DiTConfig((4, 8), 1, 2, 8, 2, 2, num_classes=2, time_scale=10.0)


def weights():
    params = drawn(init, MODEL)
    return Weights(params, MODEL, "gvp", "noise", ("cat", "dog"), {"steps": 7})


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 8e-3)]
)
def test_a_round_trip_keeps_all_but_the_last_bits(tmp_path, dtype, tolerance):
    file = tmp_path / "new" / "w.safetensors"
    save_weights(file, weights(), dtype=dtype)
    loaded, original = load_weights(file), weights()
    assert loaded[1:] == original[1:]
    assert jax.tree.structure(loaded.params) == jax.tree.structure(original.params)
    for new, old in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(original.params), strict=True
    ):
        assert new.dtype == jnp.float32
        np.testing.assert_allclose(new, old, rtol=tolerance)


def test_half_precision_halves_the_file(tmp_path):
    for dtype in ("float32", "float16"):
        save_weights(tmp_path / dtype, weights(), dtype=dtype)
    sizes = [(tmp_path / d).stat().st_size for d in ("float32", "float16")]
    # The rest are digits of offsets in the header.
    assert abs(sizes[0] - sizes[1] - 2 * parameter_count(MODEL)) < 64


def test_files_that_are_not_ours_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need an existing file, got path="):
        load_weights(tmp_path / "missing.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": np.zeros(2)}, str(foreign), metadata={"jaxguide": json.dumps({})})
    with pytest.raises(ValueError, match="got format=None in .*foreign.safetensors"):
        load_weights(foreign)
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(ValueError, match="need a safetensors file"):
        load_weights(tmp_path / "text")
    with pytest.raises(ValueError, match="got dtype='int8'"):
        save_weights(tmp_path / "x", weights(), dtype="int8")
