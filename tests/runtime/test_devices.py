"""Batches on all devices of a process."""

import jax
import numpy as np
import pytest

from jaxguide.runtime import devices

FAST_COMPILE = True
X = np.arange(10)


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_any_number_of_rows_goes_through_one_program(count):
    shapes = []

    @jax.jit
    def double(rows):
        x, number = rows
        shapes.append(x.shape)
        return {"x": 2 * x, "number": number}

    x, number = np.ones((count, 3)), np.arange(count, dtype=np.int32)
    results = devices.in_batches(double, (x, number), 8)
    np.testing.assert_array_equal(results["x"], 2 * x)
    np.testing.assert_array_equal(results["number"], number)
    assert shapes == [(8, 3)]


def test_the_last_batch_is_filled_with_its_last_row():
    seen = []
    devices.in_batches(lambda rows: seen.append(np.asarray(rows)) or rows, X, 8)
    np.testing.assert_array_equal(seen[1], [8, 9, 9, 9, 9, 9, 9, 9])


def test_rows_are_cut_over_all_devices_and_trees_are_copied():
    count = len(jax.local_devices())
    assert devices.round_up(count + 1) == 2 * count
    rows = devices.split({"x": np.zeros((2 * count, 3))})["x"]
    assert {part.data.shape for part in rows.addressable_shards} == {(2, 3)}
    assert devices.copied(np.zeros(3)).is_fully_replicated
