"""Reads the text of an optimised XLA program: computations, instructions, sizes."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1},
    **{"bf16": 2, "f16": 2, "s16": 2, "u16": 2},
    **{"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8},
}
_ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*->.*\{\s*$")
_LINE = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
)


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, dimensions) of every array in the text of a shape."""
    return [
        (dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(shape)
    ]


def size(shape: str) -> int:
    """Bytes of all arrays in the text of a shape."""
    return sum(BYTES[dtype] * math.prod(sizes) for dtype, sizes in arrays(shape))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    rest: str  # what follows the operands: attributes and metadata
    root: bool

    @functools.cached_property
    def called(self) -> list[str]:
        """Names of the computations that it runs, without a loop's condition."""
        found = _CALLED.findall(self.rest)
        for group in re.findall(r"branch_computations=\{([^}]*)\}", self.rest):
            found += [name.strip().lstrip("%") for name in group.split(",")]
        return found

    @property
    def target(self) -> str:
        """The function of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def cycles(self) -> int:
        """The compiler's estimate for a TPU; 0 if there is none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0


class Module:
    """A program: its computations by name, each a list of instructions."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        here: list[Instruction] = []
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                here = self.computations[head[2]] = []
                self.entry = head[2] if head[1] else self.entry
            elif (found := _LINE.match(line)) and (parsed := _parse(found)):
                here.append(parsed)

    def shapes(self, computation: str) -> dict[str, str]:
        """The shape of every value of a computation."""
        return {one.name: one.shape for one in self.computations[computation]}

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs its body; 1 where the program does not say."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known[1])
        named = re.search(r"condition=%?([\w.\-]+)", loop.rest)
        lines = self.computations.get(named[1], []) if named else []
        ends = [one.operands[0] for one in lines if one.op == "constant"]
        return int(ends[0]) if len(ends) == 1 and ends[0].isdigit() else 1

    def inside_loops(self) -> set[str]:
        """Computations that run more often than once."""
        seen: set[str] = set()
        waiting = [
            name
            for lines in self.computations.values()
            for one in lines
            if one.op == "while"
            for name in one.called
        ]
        while waiting:
            name = waiting.pop()
            if name not in seen and name in self.computations:
                seen.add(name)
                waiting += [c for one in self.computations[name] for c in one.called]
        return seen


def _parse(found: re.Match) -> Instruction | None:
    """Shape, operation and operands of one line."""
    text = found[3]
    shape = _balanced(text) if text.startswith("(") else text.split(" ", 1)[0]
    rest = text[len(shape) :].lstrip()
    op = re.match(r"([a-z][\w\-]*)\(", rest)
    if op is None:
        return None
    inner = _balanced(rest[len(op[1]) :])
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", inner[1:-1])
    operands = [part.split() for part in plain.split(",")]
    names = tuple(part[-1].lstrip("%") for part in operands if part)
    after = rest[len(op[1]) + len(inner) :]
    return Instruction(found[2], shape, op[1], names, after, bool(found[1]))


def _balanced(text: str) -> str:
    """The beginning of the text up to the bracket that closes its first one."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: index + 1]
    return text
