"""Grouping by name, splitting by name."""

import numpy as np
import pytest

from jaxguide import data
from jaxguide.data.emoji import GROUPS

CATEGORIES = np.array(
    ["Smileys & Emotion", "People & Body", "Travel & Places", "Flags"]
)
MEMBERS = {
    "joy": (0, "face"),
    "smirk_cat": (0, None),
    "blue_heart": (0, "heart"),
    "heart_eyes": (0, None),
    "wave": (1, "hand"),
    "male-cook": (1, "person"),
    "man-surfing": (1, None),
    "clock1230": (2, "clock"),
    "full_moon": (2, "moon"),
    "flag-ch": (3, "flag"),
    "pirate_flag": (3, None),
}


@pytest.fixture
def file(tmp_path):
    """Every name of `MEMBERS` in three drawings, and many flags."""
    names = [name for name in MEMBERS for _ in range(3)]
    names += [f"flag-{a}{b}" for a in "abcdefgh" for b in "abcdefgh" for _ in range(2)]
    category = [MEMBERS.get(name, (3, "flag"))[0] for name in names]
    x = np.random.default_rng(0).integers(0, 255, (len(names), 4, 4, 3), np.uint8)
    x[:, 0, 0, 0] = np.arange(len(names))  # says which image it is
    path = tmp_path / "emoji.npz"
    np.savez(
        path, x=x, y=np.array(category), name=np.array(names), categories=CATEGORIES
    )
    return path, names


def members(dataset, names):
    return [names[i] for i in dataset.images[:, 0, 0, 0]], dataset.labels


def test_groups_are_chosen_by_name(file):
    path, names = file
    found = {}
    for split in ("train", "test"):
        picked, labels = members(data.emoji(path, split=split, size=4), names)
        found |= dict(zip(picked, labels, strict=True))
    for name, (_, group) in MEMBERS.items():
        assert found.get(name) == (tuple(GROUPS).index(group) if group else None), name


def test_no_name_is_on_both_sides_of_the_split(file):
    path, names = file
    train, _ = members(data.emoji(path, size=4), names)
    test, _ = members(data.emoji(path, split="test", size=4), names)
    assert set(train) & set(test) == set()
    flags = len({name for name in names if name.startswith("flag-")})
    held_out = len({name for name in test if name.startswith("flag-")})
    assert 0 < held_out < 0.3 * flags


def test_small_classes_are_repeated_in_training_alone(file):
    path, _ = file
    train, test = data.emoji(path, size=4), data.emoji(path, split="test", size=4)
    count = np.bincount(train.labels)
    assert count[count > 0].min() >= 0.4 * count.max()
    pixels = [image.tobytes() for image in test.images]
    assert len(set(pixels)) == len(pixels)


def test_a_smaller_size_is_the_mean_over_squares(file):
    path, _ = file
    full, half = data.emoji(path, size=4), data.emoji(path, size=2)
    corner = full.images[:, :2, 2:].astype(float).mean(axis=(1, 2))
    np.testing.assert_allclose(half.images[:, 0, 1], corner, atol=0.5)


def test_mistakes_are_named(file):
    path, _ = file
    with pytest.raises(ValueError, match="need a size that divides 4, got size=3"):
        data.emoji(path, size=3)
    with pytest.raises(ValueError, match="got split='valid'"):
        data.emoji(path, split="valid")
