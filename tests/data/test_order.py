"""Examples are a pure function of seed and position: shares, resumed runs, epochs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxguide import data


@dataclasses.dataclass(frozen=True)
class Echo:
    """A source that answers with what it was asked for."""

    size: int
    class_names: tuple[str, ...] = ("only",)
    num_classes: int = 1
    image_shape: tuple[int, int, int] = (1, 1, 4)
    is_latent: bool = False

    def __len__(self):
        return self.size

    def read(self, picked, *, flip, draws):
        assert picked.dtype == np.int64 and flip.dtype == bool
        assert draws.dtype == np.uint64
        parts = [picked, flip, draws >> np.uint64(40), draws & np.uint64(0xFFFFFF)]
        asked = np.stack([part.astype(np.float32) for part in parts], axis=-1)
        return asked[:, None, None], picked.astype(np.int32)


def run(size, batch_size, steps, seed=0, **share):
    """What steps show, one row per example: number, flip, both ends of its draw."""
    seen = [
        data.batch(
            Echo(size), step, batch_size=batch_size, seed=seed, flip=True, **share
        )[0]
        for step in steps
    ]
    return np.concatenate(seen)[:, 0, 0]


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 40),
    part=st.integers(1, 9),
    count=st.integers(1, 6),
    step=st.integers(0, 50),
    seed=st.integers(0, 9),
)
def test_shares_of_hosts_are_the_whole_batch(size, part, count, step, seed):
    whole = run(size, part * count, [step], seed)
    shares = [
        run(size, part * count, [step], seed, share=(index, count))
        for index in range(count)
    ]
    assert all(len(share) == part for share in shares)
    np.testing.assert_array_equal(np.concatenate(shares), whole)


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 30),
    batch_size=st.integers(1, 45),
    begun=st.integers(0, 12),
    seed=st.integers(0, 9),
)
def test_a_resumed_run_sees_what_an_unbroken_one_sees(size, batch_size, begun, seed):
    unbroken = run(size, batch_size, range(13), seed)
    data.order._permutation.cache_clear()
    resumed = run(size, batch_size, range(begun, 13), seed)
    np.testing.assert_array_equal(resumed, unbroken[begun * batch_size :])
    for epoch in range(len(unbroken) // size):
        numbers = unbroken[epoch * size : (epoch + 1) * size, 0]
        np.testing.assert_array_equal(np.sort(numbers), range(size))


def test_draws_are_of_the_position_and_differ_in_every_epoch():
    seen = run(7, 5, range(28), seed=3)
    whole = data.draws(0, 140, seed=3)
    np.testing.assert_array_equal(seen[:, 2], (whole >> np.uint64(40)).astype(float))
    assert len(np.unique(whole)) == 140
    again = run(7, 20, range(7), seed=3)  # another batch size, the same positions
    np.testing.assert_array_equal(again, seen)
    other = run(7, 5, range(28), seed=4)
    assert not np.any(other[:, 2:] == seen[:, 2:])


def test_draws_are_uniform_and_flips_are_fair():
    draws = data.draws(0, 40_000, seed=0)
    for shift in (0, 31, 63):
        share = ((draws >> np.uint64(shift)) & np.uint64(1)).mean()
        np.testing.assert_allclose(share, 0.5, atol=0.01)  # four standard errors
    np.testing.assert_allclose(run(50, 4000, range(2))[:, 1].mean(), 0.5, atol=0.03)


@pytest.mark.parametrize(
    ("batch_size", "share"), [(8, (0, 3)), (8, (4, 4)), (8, (-1, 4))]
)
def test_a_batch_that_hosts_cannot_share_is_refused(batch_size, share):
    with pytest.raises(ValueError, match="batch: need 0 <= index < count") as caught:
        data.batch(Echo(5), 0, batch_size=batch_size, seed=0, share=share)
    assert "\n" not in str(caught.value)


def test_an_empty_batch_is_refused_as_such():
    with pytest.raises(ValueError, match="need batch_size >= 1, got batch_size=0. 64"):
        data.batch(None, 0, batch_size=0, seed=0)
