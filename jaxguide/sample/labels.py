"""Labels in words: names, places and ranges of places, each with one meaning."""

import re
from collections.abc import Sequence
from typing import NoReturn

from jaxguide.errors import InputError
from jaxguide.runtime.calls import lookup

# A quoted name (commas allowed), or anything without a comma.
_WORD = re.compile(r"""\s*('(?:[^']*)'|"(?:[^"]*)"|[^,]*?)\s*(,|$)""")
_PLACES = re.compile(r"(#?)([0-9]{1,9})(?:-#?([0-9]{1,9}))?", re.ASCII)


def parse_labels(text: str, class_names: Sequence[str]) -> list[int]:
    """Labels from "all", or names, places and ranges of places joined by commas.

    `#3` is always a place, `'3'` always a name; a bare `3` is the class that both mean.

    Args:
        text: such as "all", "bag,coat", "0,3,5-7", "#3", "'dog, black'".
        class_names: the name of every label.

    Returns:
        At least one label, in the order of the text.

    Raises:
        InputError: if a name is unknown or stands for several labels, a place is out of
            range, a range is empty, or a word means one class as a name and another
            one as a place.

    >>> parse_labels("0,2-3,hat", ["bag", "coat", "shoe", "hat"])
    [0, 2, 3, 3]
    """
    if text == "all":
        if "all" in class_names:
            _refuse(text, "one meaning", "'all' is a class too. Write \"'all'\" for it")
        return list(range(len(class_names)))
    return [
        label for word in _words(text) for label in _labels(text, word, class_names)
    ]


def parse_label(field: str, text: str, class_names: Sequence[str]) -> int:
    """The one label of a field.

    Raises:
        InputError: as `parse_labels`, or if there are several.
    """
    labels = parse_labels(text, class_names)
    if len(labels) != 1:
        raise InputError(
            f"labels: need one label for {field}, got {field}={text!r}, which is "
            f"{len(labels)}."
        )
    return labels[0]


def _words(text: str) -> list[str]:
    """The words between commas, quotes kept."""
    words, start = [], 0
    while True:
        match = _WORD.match(text, start)
        if match is None or not match[1]:
            _refuse(text, "names or places joined by commas", "write 0,2 or 'a, b',c")
        words.append(match[1])
        if not match[2]:
            return words
        start = match.end()


def _labels(text: str, word: str, names: Sequence[str]) -> list[int]:
    """The labels that one word means."""
    quoted = word[0] in "'\"" and len(word) > 1 and word[-1] == word[0]
    name = word[1:-1] if quoted else word
    places = None if quoted else _PLACES.fullmatch(word)
    named = [] if places and places[1] else _named(text, name, names)
    if places is None:
        return named or [_unknown(name, names)]
    if named and not _exists(places, len(names)):
        return named
    run = _range(text, word, places, names)
    if named and named != run:
        _refuse(
            text,
            "one meaning",
            f"{word!r} is the name of label {named[0]} and a place too. "
            f"Write #{named[0]} or #{places[2]}",
        )
    others = [] if places[1] else [n for n in run if str(n) in names]
    moved = [n for n in others if names[n] != str(n)]
    if moved and not named:
        _refuse(
            text,
            "one meaning",
            f"{moved[0]} is the name of another class than the one at this place. "
            f"Write #{word} for places, or names one by one",
        )
    return run


def _named(text: str, name: str, names: Sequence[str]) -> list[int]:
    """The label called so, or none."""
    found = [label for label, other in enumerate(names) if other == name]
    if len(found) > 1:
        places = " or ".join(f"#{label}" for label in found[:4])
        _refuse(text, "one meaning", f"{name!r} names several classes. Write {places}")
    return found


def _unknown(name: str, names: Sequence[str]) -> int:
    """Raises InputError with the nearest name."""
    return lookup("labels", name, {other: label for label, other in enumerate(names)})


def _exists(places: re.Match, count: int) -> bool:
    """Whether a place or a range of places is one of so many labels."""
    first = int(places[2])
    last = first if places[3] is None else int(places[3])
    return first <= last < count


def _range(text: str, word: str, places: re.Match, names: Sequence[str]) -> list[int]:
    count = len(names)
    first = int(places[2])
    last = first if places[3] is None else int(places[3])
    if last < first:
        _refuse(text, "ranges upward", f"{word!r} is empty. Write {last}-{first}")
    if last >= count:
        known = f"{list(names[:10])}{' and more' if count > 10 else ''}"
        need = f"numbers in 0..{count - 1} or names in {known}"
        _refuse(text, need, f"{word!r} is none of them")
    return list(range(first, last + 1))


def _refuse(text: str, need: str, why: str) -> NoReturn:
    raise InputError(f"labels: need {need}, got labels={text!r}: {why}.")
