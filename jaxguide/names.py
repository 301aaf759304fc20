"""Names in configs: found in a table, or answered with the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def lookup(owner: str, name: str, known: Mapping[str, Value]) -> Value:
    """The object called `name`.

    Raises:
        ValueError: if there is none; names the nearest and all known ones.
    """
    if name in known:
        return known[name]

    def alike(other: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, name, other).ratio()
        return ratio, len(set(name) & set(other))

    near = max(sorted(known), key=alike)
    raise ValueError(
        f"{owner}: need a name in {sorted(known)}, got name={name!r}. "
        f"Did you mean {near!r}?"
    )
