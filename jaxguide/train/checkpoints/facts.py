"""The facts of a run beside every checkpoint, held against those of today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxguide.errors import InputError

# In the facts: what may change from one part of a run to the next.
SETTINGS = "settings"
_LONGEST = 200


def newest(folder: Path) -> tuple[int, dict] | None:
    """Step and facts of the newest checkpoint whose facts can be read; writes nothing.

    Args:
        folder: of the checkpoints; may be missing.
    """
    names = (path.name for path in folder.glob("*")) if folder.is_dir() else ()
    for step in sorted((int(n) for n in names if n.isdecimal()), reverse=True):
        try:
            text = (folder / str(step) / "meta" / "metadata").read_text("utf-8")
            facts = json.loads(text)["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `Checkpoints.restore` says what is damaged
        if isinstance(facts, dict):
            return step, facts
    return None


def compare(facts: dict, expect: dict, step: int, settings: dict | None = None) -> None:
    """Raises InputError unless the facts of a checkpoint agree with `expect`.

    What the checkpoint does not say, because an older version wrote it, is passed over.
    """
    old, new = _flat(facts), _flat(expect)
    other = _differing(old, new)
    if any(name.startswith("data.") for name in other):  # then say which two sets
        old |= _flat(facts.get(SETTINGS, {}))
        new |= _flat(settings or {})
        other += [name for name in _differing(old, new) if name == "data.path"]
    if other:
        values = (f"{n}={_short(new[n])} instead of {_short(old[n])}" for n in other)
        raise InputError(
            f"run: need the {', '.join(other)} of the checkpoint at step {step}, got "
            f"{', '.join(values)}. Use another folder, or undo the change."
        )


def remarks(facts: dict, expect: dict, settings: dict) -> list[str]:
    """A line for every setting that has changed, and for what cannot be compared."""
    old, new = _flat(facts.get(SETTINGS, {})), _flat(settings)
    lines = [
        f"changed: {name} is {_short(new[name])}, it was {_short(old[name])}"
        for name in _differing(old, new)
    ]
    known = _flat(facts)
    unknown = [name for name in _flat(expect) if name not in known]
    if unknown:
        lines.append(f"not compared, the checkpoint does not say: {', '.join(unknown)}")
    return lines


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [name for name in new if name in old and old[name] != new[name]]


def _flat(facts: Any) -> dict[str, Any]:
    """Values by dotted names, as JSON gives them back."""
    return dict(_leaves(json.loads(json.dumps(facts)), ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
