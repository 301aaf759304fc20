"""What lies in folders of pictures, and what of it is passed over."""

from __future__ import annotations

import os
from collections import Counter

from jaxguide.data.pictures import PICTURES
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


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's data: hidden, or the system's."""
    return name.startswith(".") or name.lower() in SYSTEM


def is_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return name.lower().endswith(PICTURES)


def class_folders(root: str | os.PathLike[str], passed: Counter[str]) -> list[str]:
    """Names of the folders in `root`, sorted; what lies beside them is counted."""
    names = []
    with os.scandir(root) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                names.append(entry.name)
            else:
                passed[BESIDE if is_picture(entry.name) else _ending(entry.name)] += 1
    return sorted(names)


def pictures_in(folder: str, passed: Counter[str]) -> list[str]:
    """Paths of the pictures in a folder, sorted; what else is in it is counted."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                nested = pictures_below(entry.path, passed)
                if nested:
                    passed[NESTED] += len(nested)
            elif is_picture(entry.name):
                found.append(entry.path)
            else:
                passed[_ending(entry.name)] += 1
    return sorted(found)


def pictures_below(folder: str | os.PathLike[str], passed: Counter[str]) -> list[str]:
    """Paths of the pictures in a folder and all below; other files are counted."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            if is_hidden(name):
                continue
            if is_picture(name):
                found.append(os.path.join(place, name))
            else:
                passed[_ending(name)] += 1
    return sorted(found)


def tell(owner: str, root: str | os.PathLike[str], passed: Counter[str]) -> None:
    """One line that says what was passed over, if anything was."""
    if passed:
        counts = ", ".join(f"{count} {kind}" for kind, count in passed.most_common())
        say(f"{owner}: passed over in {os.fspath(root)!r}: {counts}")


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1].lower()
    return f"{ending} files" if ending else "files without an ending"
