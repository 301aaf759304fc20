"""What the processes of one run must have in common, and the words they meet with.

The token is no secret: it keeps apart runs that meet by mistake, not enemies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

import jaxguide

_NUMBER, _TOKEN = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Hello:
    """What a process says of itself.

    Attributes:
        index, count: of the process, and of all, as it was told.
        token: of its command and config.
    """

    index: int
    count: int
    token: str

    def words(self) -> tuple[object, ...]:
        """As they are sent."""
        return "hello", self.index, self.count, self.token


def parse(words: list[str]) -> Hello | None:
    """What the words say; None if no process of such a run has said them."""
    if len(words) != 4 or words[0] != "hello":
        return None
    _, index, count, token = words
    numbers = _NUMBER.fullmatch(index) and _NUMBER.fullmatch(count)
    if not (numbers and _TOKEN.fullmatch(token)):
        return None
    return Hello(int(index), int(count), token)


def token(config: Any) -> str:
    """A digest of a config, the same in every process that was given the same.

    Everything in it counts, paths too: the same command runs in every process.
    """
    facts = [jaxguide.__version__, type(config).__qualname__, _plain(config)]
    text = json.dumps(facts, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """JSON-able, and without addresses of memory."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if value is None or isinstance(value, str | int | float | list | tuple):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return [str(value.dtype), np.asarray(value).tolist()]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
