"""What lies in folders of pictures, and what of it is passed over."""

from __future__ import annotations

import os
from collections import Counter

from jaxguide.data.pictures import PICTURES
from jaxguide.errors import InputError
from jaxguide.runtime.files import say

# Folders that systems and programs make; so are those that begin with a dot.
SYSTEM = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "@tmp",
        "__macosx",
        "__pycache__",
        "lost+found",
        "system volume information",
    }
)
NESTED, BESIDE = "pictures in folders further down", "pictures beside the folders"
NOTHING = "links that lead nowhere, or pipes"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's data: hidden, or the system's."""
    return name.startswith(".") or name.lower() in SYSTEM


def class_folders(root: str | os.PathLike[str], passed: Counter[str]) -> list[str]:
    """Names of the folders in `root`, sorted; what lies beside them is counted."""
    entries = _entries(root)
    beside: list[str] = []
    for entry in entries:
        if not entry.is_dir():
            _sort(entry, beside, passed)
    if beside:
        passed[BESIDE] += len(beside)
    return sorted(entry.name for entry in entries if entry.is_dir())


def pictures_in(folder: str, passed: Counter[str]) -> list[str]:
    """Paths of the pictures in a folder, sorted; what else is in it is counted."""
    found: list[str] = []
    for entry in _entries(folder):
        if not entry.is_dir():
            _sort(entry, found, passed)
        elif nested := pictures_below(entry.path, passed):
            passed[NESTED] += len(nested)
    return sorted(found)


def pictures_below(folder: str | os.PathLike[str], passed: Counter[str]) -> list[str]:
    """Paths of the pictures in a folder and all below; other files are counted."""
    found: list[str] = []
    ahead, seen = [os.fspath(folder)], set()
    while ahead:
        place = ahead.pop()
        if (real := os.path.realpath(place)) in seen:  # links may go round
            continue
        seen.add(real)
        for entry in _entries(place):
            if entry.is_dir():
                ahead.append(entry.path)
            else:
                _sort(entry, found, passed)
    return sorted(found)


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What lies in a folder and is not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise InputError(
            f"folders: need a folder that can be read, got path={os.fspath(folder)!r}: "
            f"{error.strerror}. Give it the right to be read, or take it away."
        ) from error


def _sort(entry: os.DirEntry[str], found: list[str], passed: Counter[str]) -> None:
    """A picture to the found ones; anything else is counted by its ending."""
    if not entry.is_file():
        passed[NOTHING] += 1
    elif entry.name.lower().endswith(PICTURES):
        found.append(entry.path)
    else:
        ending = os.path.splitext(entry.name)[1].lower()
        passed[f"{ending} files" if ending else "files without an ending"] += 1


def tell(owner: str, root: str | os.PathLike[str], passed: Counter[str]) -> None:
    """One line that says what was passed over, if anything was."""
    if passed:
        counts = ", ".join(f"{count} {kind}" for kind, count in passed.most_common())
        say(f"{owner}: passed over in {os.fspath(root)!r}: {counts}")
