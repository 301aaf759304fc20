"""Emoji of three free vendors, regrouped into ten classes that differ at a glance.

The nine Unicode categories mix too much for a tiny model ("Travel & Places" holds
clocks, moons, cars and castles), so the groups below are chosen by name. Expected
file: an `.npz` with `x` uint8 [N, H, W, 3], `y` category 0..8, `name`, and
`categories`. Images are Noto (Apache-2.0), Twemoji (CC-BY 4.0) and Fluent (MIT).
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from jaxguide.data.dataset import Dataset
from jaxguide.errors import InputError
from jaxguide.runtime.npz import Npz

HELD_OUT_PERCENT = 10

FIELDS = ("x", "y", "name", "categories")

# class: (Unicode category, names that belong to it, names that do not)
GROUPS = {
    "face": (
        "Smileys & Emotion",
        r".*",
        r".*(heart|_cat|cat_|monkey|evil|bubble|skull|japanese|hole|boom|dash"
        r"|robot|alien|invader|ghost|hankey|cupid|letter|zzz|dizzy|sweat_drops"
        r"|eye-in|imp|balloon).*|100|anger|kiss",
    ),
    "person": (
        "People & Body",
        r"(fe)?male-(?!guard|genie).*|adult|baby|boy|girl|child|man|woman"
        r"|older_.*|(bald|bearded|curly_haired|red_haired|white_haired)_.*"
        r"|blond-haired.*|(wo)?man-(pouting|frowning|wearing-turban)"
        r"|artist|astronaut|cook|cop|construction_worker|farmer|firefighter|judge"
        r"|mechanic|pilot|prince|princess|scientist|singer|student|teacher|santa"
        r"|mrs_claus|mx_claus|man_with_(beard|turban|gua_pi_mao)|technologist"
        r"|person_(frowning|with_pouting_face|with_headscarf|with_crown)"
        r"|office_worker|factory_worker|health_worker",
        r"",
    ),
    "hand": (
        "People & Body",
        r"[+]1|-1|call_me_hand|clap|crossed_fingers|facepunch|fist|hand|handshake"
        r"|hand_with_.*|heart_hands|i_love_you_.*|index_.*|(left|right)-facing_fist"
        r"|(left|right)wards_.*hand|middle_finger|ok_hand|open_hands|palms?_.*"
        r"|pinched_fingers|pinching_hand|point_.*|pray|raised_hand.*"
        r"|raised_back_.*|spock-hand|the_horns|v|wave",
        r"",
    ),
    "heart": (
        "Smileys & Emotion",
        r".*heart.*|cupid",
        r".*(face|eyes|cat|kissing|ornament).*",
    ),
    "clock": ("Travel & Places", r"clock\d+|stopwatch|mantelpiece_clock", r""),
    "moon": ("Travel & Places", r".*moon.*", r""),
    "flag": ("Flags", r"flag-.*|..", r""),
    "animal": (
        "Animals & Nature",
        r".*_face|cat|dog|cow|horse|mouse|pig|rabbit|tiger|bear|boar|chicken|frog"
        r"|gorilla|hamster|hedgehog|koala|moose|owl|penguin|polar_bear|raccoon|wolf"
        r"|eagle|baby_chick|hatched_chick|orangutan|bird",
        r"dragon_face",
    ),
    "fruit": (
        "Food & Drink",
        r"apple|green_apple|avocado|banana|blueberries|cherries|coconut|grapes"
        r"|kiwifruit|lemon|lime|mango|melon|olive|peach|pear|pineapple|strawberry"
        r"|tangerine|tomato|watermelon|bell_pepper|eggplant|potato|onion",
        r"",
    ),
    "sign": (
        "Symbols",
        r"a|ab|abcd?|accept|aquarius|aries|arrow.*|atm|atom_symbol|b|baby_symbol"
        r"|back|baggage_claim|cancer|capital_abcd|capricorn|cinema|cl|cool|customs"
        r"|eight|five|four|free|gemini|id|information_source|khanda|koko"
        r"|latin_cross|left_luggage|left_right_arrow|leo|libra|menorah.*|mens|m|new"
        r"|ng|nine|o2|ok|om_symbol|one|ophiuchus|orthodox_cross|parking"
        r"|passport_control|peace_symbol|pisces|place_of_worship|potable_water"
        r"|put_litter.*|repeat.*|restroom|rewind|sa|sagittarius|scorpius|seven"
        r"|six.*|sos|star_.*|taurus|three|two|u\w{4}|up|virgo|vs|wc|wheel.*|womens"
        r"|yin_yang|zero|fast_forward|eject|keycap.*|hash|1234|signal_strength",
        r"arrow_heading.*",
    ),
}


def emoji(path: str | Path, *, split: str = "train", size: int = 32) -> Dataset:
    """Emoji of ten classes; small classes are repeated towards the large ones.

    The split is by a hash of the name, never by image: the drawings of one emoji
    by several vendors, or in several skin tones, stay on one side. A tenth of the
    names is held out.

    Args:
        path: the `.npz` file described in the module docstring.
        split: "train" (classes evened out by repetition) or "test" (no repetition).
        size: edge in pixels; the edge in the file, or a divisor of it, to which
            images are averaged over squares.

    Returns:
        A `Dataset` with the classes of `GROUPS`, in that order.

    Raises:
        InputError: if the file is missing or lacks a field, the split is unknown, or
            the size does not divide the stored one.
    """
    if split not in ("train", "test"):
        raise InputError(
            f"emoji: need split in ('train', 'test'), got split={split!r}. "
            "The split is by name; there is no other part."
        )
    fields = _read(Npz(path, "emoji"))
    labels = _labels(fields["name"], fields["categories"][fields["y"]])
    held_out = np.array([_is_held_out(name) for name in fields["name"]])
    picked = np.flatnonzero((labels >= 0) & (held_out == (split == "test")))
    if split == "train":
        picked = np.repeat(picked, _repeats(labels[picked]))
    images = _shrink(fields["x"][picked], size)
    return Dataset(images, labels[picked], tuple(GROUPS))


def _read(file: Npz) -> dict[str, np.ndarray]:
    """The arrays of the file, which fit together."""
    file.need(*FIELDS)
    fields = {name: file.read(name) for name in FIELDS}
    x, y, names, categories = (fields[name] for name in FIELDS)
    if x.ndim != 4 or x.dtype != np.uint8 or x.shape[1] != x.shape[2] or not len(x):
        raise file.refused("x uint8 [N, H, H, C]", f"{x.dtype} {list(x.shape)!r}")
    if {y.shape, names.shape} != {x.shape[:1]} or categories.ndim != 1:
        raise file.refused("y and name of every x", f"{y.shape!r} and {names.shape!r}")
    kinds = names.dtype.kind + categories.dtype.kind + y.dtype.kind
    if kinds not in ("UUi", "UUu"):
        raise file.refused(
            "texts in name and categories and integers in y",
            f"{names.dtype}, {categories.dtype}, {y.dtype}",
        )
    if int(y.min()) < 0 or int(y.max()) >= len(categories):
        raise file.refused(
            f"y in 0..{len(categories) - 1}", f"{int(y.min())}..{int(y.max())}"
        )
    return fields


def _shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Mean over squares; uint8 [N, size, size, C]."""
    count, stored, _, channels = images.shape
    if not 1 <= size <= stored or stored % size:
        raise InputError(
            f"emoji: need a size that divides {stored}, got size={size!r}. "
            f"Use {stored}."
        )
    square = (count, size, stored // size, size, stored // size, channels)
    means = images.reshape(square).mean(axis=(2, 4), dtype=np.float64)
    return np.rint(means).astype(np.uint8)


def _labels(names: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Class of every image by its name; -1 where no group claims it."""
    labels = np.full(len(names), -1, np.int32)
    for label, (category, include, exclude) in enumerate(GROUPS.values()):
        for i in np.flatnonzero(categories == category):
            if re.fullmatch(include, names[i]) and not re.fullmatch(exclude, names[i]):
                labels[i] = label
    return labels


def _is_held_out(name: str) -> bool:
    return zlib.crc32(name.encode()) % 100 < HELD_OUT_PERCENT


def _repeats(labels: np.ndarray) -> np.ndarray:
    """How often each image enters, so that no class is under half the largest."""
    count = np.bincount(labels)
    return np.maximum(1, np.rint(count.max() / 2 / np.maximum(count, 1)))[
        labels
    ].astype(np.int64)
