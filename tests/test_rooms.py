"""The architecture: which rooms there are, and that imports run one way.

The order below is that of "The rooms" in CONTRIBUTING.md.
"""

import ast
from pathlib import Path

import pytest

import jaxguide

PACKAGE = Path(jaxguide.__file__).parent

# A room imports rooms that stand to the right of it in this list, and itself.
ORDER = (
    "experiments",
    "sweep",
    "train",
    "evaluate",
    "sample",
    "samplers",
    "data",
    "convert",
    "oracle",
    "guidance",
    "losses",
    "models",
    "paths",
    "runtime",
    "errors",
)
# Rooms of one floor: neither imports the other, though the list has an order.
APART = (
    ("experiments", "sweep"),
    ("samplers", "data"),
    ("samplers", "convert"),
    ("guidance", "losses"),
    ("guidance", "models"),
    ("oracle", "losses"),
    ("oracle", "models"),
    ("losses", "models"),
    ("paths", "runtime"),
)


def imports(source: str) -> set[str]:
    """The rooms that a module imports, also inside its functions.

    >>> sorted(imports("from jaxguide import paths\\nimport jaxguide.data.order"))
    ['data', 'paths']
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [name.split(".") for name in names if name.startswith("jaxguide.")]
        found |= {part[1] for part in parts}
    return found - {"__version__"}


def wrong(room: str, used: set[str]) -> list[str]:
    """The arrows out of `room` that run upward or between rooms of one floor."""
    place = {name: index for index, name in enumerate(ORDER)}
    apart = {(a, b) for a, b in APART} | {(b, a) for a, b in APART}
    return [
        f"{room} imports {other}"
        for other in sorted(used - {room})
        if place.get(other, -1) < place[room] or (room, other) in apart
    ]


def rooms() -> dict[str, list[Path]]:
    """Files by room."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if first not in ("__init__", "configs"):
            found.setdefault(first, []).append(file)
    return found


def test_these_are_all_rooms():
    assert set(rooms()) == set(ORDER)


def test_the_top_has_at_most_sixteen_names():
    apart = {"__pycache__", "configs", "py.typed"}  # no code, or of a wheel
    names = {file.name for file in PACKAGE.iterdir()} - apart
    assert len(names) <= 16, sorted(names)


@pytest.mark.parametrize("room", ORDER)
def test_imports_run_one_way(room):
    arrows = [
        f"{file.relative_to(PACKAGE)}: {arrow}"
        for file in rooms()[room]
        for arrow in wrong(room, imports(file.read_text(encoding="utf-8")))
    ]
    assert not arrows, "\n".join(arrows)


def test_an_import_upward_is_named_with_both_rooms():
    source = "def f():\n    from jaxguide.train.loop import run\n"
    assert wrong("paths", imports(source)) == ["paths imports train"]
    assert wrong("losses", imports("import jaxguide.models")) == [
        "losses imports models"
    ]
    assert wrong("train", imports("from jaxguide import models, paths")) == []
