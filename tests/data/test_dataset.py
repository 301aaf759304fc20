"""The order of examples, and what a data set refuses to be."""

import numpy as np
import pytest

from jaxguide import data


def numbered(count=10):
    """Images that say which example they are; the left half is 0."""
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, :, 1, 0] = np.arange(count)[:, None]
    return data.Dataset(images, np.zeros(count, np.int32), ("only",))


@pytest.mark.parametrize("batch_size", [3, 5, 10, 23])
def test_every_epoch_shows_every_example_once(batch_size):
    steps = [data.indices(10, s, batch_size=batch_size, seed=4) for s in range(20)]
    seen = np.concatenate(steps)
    for epoch in range(len(seen) // 10):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:20]), "epochs differ"


def test_a_batch_is_a_function_of_seed_and_step_alone():
    def images(step, seed):
        return data.batch(numbered(), step, batch_size=4, seed=seed, flip=True)[0]

    later = images(7, seed=1)
    for step in (3, 0, 9):
        images(step, seed=1)
    np.testing.assert_array_equal(images(7, seed=1), later)
    assert not np.array_equal(images(7, seed=2), later)
    assert not np.array_equal(images(8, seed=1), later)


def test_batches_are_scaled_and_flipped_half_the_time():
    plain, label = data.batch(numbered(), 0, batch_size=1000, seed=0)
    flipped, _ = data.batch(numbered(), 0, batch_size=1000, seed=0, flip=True)
    assert plain.dtype == np.float32 and label.dtype == np.int32
    np.testing.assert_allclose(plain.min(), -1)
    mirrored = np.any(flipped != plain, axis=(1, 2, 3))
    np.testing.assert_allclose(mirrored.mean(), 0.45, atol=0.06)  # example 0 is even
    np.testing.assert_array_equal(flipped[mirrored], plain[mirrored][:, :, ::-1])


def test_scaling_to_the_unit_range_is_undone_exactly():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(data.to_uint8(data.to_unit(every)), every)
    np.testing.assert_array_equal(data.to_uint8(np.array([-3.0, 3.0])), [0, 255])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), [0, 1], r"need images uint8 \[N, H, W, C\]"),
        (np.zeros((2, 4, 4, 1)), [0, 1], "got images=float64"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0], "need one label per image"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, 2], "need 0 <= labels < 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        data.Dataset(images, np.array(labels, np.int32), ("a", "b"))


def test_digits_come_with_scikit_learn():
    train, test = data.digits(), data.digits(split="test")
    assert len(train) + len(test) == 1797
    assert train.image_shape == (8, 8, 1) and train.images.max() == 255
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in test.images}
    with pytest.raises(ValueError, match="got split='valid'"):
        data.digits(split="valid")
