"""How long a compiled program takes at least: every kernel by its FLOPs and its bytes.

    time = sum over kernels of max(FLOPs / peak, bytes / bandwidth)

A loop counts as often as it runs, a conditional as its longest branch. Of an array that
a kernel only slices, the slice is counted. On a TPU the compiler's own estimate of
cycles is taken where it gives one.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable

from benchmarks.hlo import Instruction, Module, arrays, size

FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota"),
    *("after-all", "partition-id", "replica-id", "copy-done", "opt-barrier"),
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a device can do."""

    flops: dict[str, float]  # per second, by dtype
    bandwidth: float  # bytes per second
    clock: float = 0.0  # Hz, for a compiler that counts cycles

    def seconds(self, flops: float, moved: float, dtype: str) -> float:
        """The longer of computing and moving."""
        return max(flops / self.flops[dtype], moved / self.bandwidth)


@dataclasses.dataclass
class Time:
    """Seconds by kind of kernel, and what made them."""

    seconds: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    moved: float = 0.0
    kernels: float = 0.0

    def add(self, other: Time, times: float = 1) -> None:
        """Another part of the program, so many times."""
        for kind, seconds in other.seconds.items():
            self.seconds[kind] += seconds * times
        self.moved += other.moved * times
        self.kernels += other.kernels * times

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())


def estimate(module: Module, limits: Limits, *, shortest: bool = False) -> Time:
    """The time of a whole program.

    Args:
        module: the program.
        limits: of the device.
        shortest: count the shortest branch of a conditional, not the longest: where it
            looks something up, and the other branch only runs if it is not found.
    """
    return _Estimate(module, limits, min if shortest else max).computation(module.entry)


class _Estimate:
    def __init__(self, module: Module, limits: Limits, choose: Callable):
        self.module, self.limits, self.choose = module, limits, choose

    def computation(self, name: str) -> Time:
        """One run of a computation."""
        total = Time()
        shapes = self.module.shapes(name)
        for one in self.module.computations[name]:
            if one.op == "while":
                for body in one.called:
                    total.add(self.computation(body), self.module.trips(one))
            elif one.op in ("conditional", "call"):
                runs = [self.computation(branch) for branch in one.called]
                total.add(self.choose(runs, key=lambda run: run.total))
            elif one.op not in FREE:
                total.add(self.kernel(one, shapes))
        return total

    def kernel(self, one: Instruction, shapes: dict[str, str]) -> Time:
        """One kernel."""
        moved = self.bytes(one, shapes)
        flops, dtype = self.flops(one, shapes)
        seconds = self.limits.seconds(flops, moved, dtype)
        if one.cycles and self.limits.clock:
            seconds = one.cycles / self.limits.clock
        return Time(collections.Counter({kind_of(one): seconds}), moved, 1)

    def bytes(self, one: Instruction, shapes: dict[str, str]) -> float:
        """What it reads and writes."""
        # Scratch space of a library is reserved, not moved.
        written = size(re.sub(r"[su]8\[[\d,]*\]", "", one.shape))
        inner = self.module.computations.get(one.called[0]) if one.called else None
        if one.op == "fusion" and inner is not None:
            return _written(inner, written) + sum(
                _read(inner, index, size(shapes.get(name, "")))
                for index, name in enumerate(one.operands)
            )
        if one.op in ("dynamic-slice", "slice", "gather"):
            return 2 * written
        if one.op == "dynamic-update-slice":
            return 2 * size(shapes.get(one.operands[1], ""))
        return written + sum(size(shapes.get(name, "")) for name in one.operands)

    def flops(self, one: Instruction, shapes: dict[str, str]) -> tuple[float, str]:
        """Of matrix products alone, and the dtype that they read."""
        if "cublas" in one.target or one.op in ("dot", "convolution"):
            return _product(one, shapes)
        if "fmha" in one.target or one.target == "tpu_custom_call":
            return _attention(one, shapes)
        found = [
            _product(inner, self.module.shapes(name))
            for name in one.called
            for inner in self.module.computations.get(name, [])
            if inner.op in ("dot", "convolution")
        ]
        if not found:
            return 0.0, "bf16"
        return sum(flops for flops, _ in found), found[0][1]


def kind_of(one: Instruction) -> str:
    """A name for people."""
    if "fmha" in one.target or one.target == "tpu_custom_call":
        return "attention"
    if "cublas" in one.target or one.op in ("dot", "convolution"):
        return "products"
    if "dynamic-slice" in one.name or "dynamic_slice" in one.name:
        return "slices"
    if one.op in ("copy", "transpose", "convert") or "convert" in one.name:
        return "copies"
    return "elementwise"


def _product(one: Instruction, shapes: dict[str, str]) -> tuple[float, str]:
    """2 x values of the result x length of the contracted axes."""
    (dtype, left), *_ = arrays(shapes.get(one.operands[0], "")) or [("bf16", ())]
    found = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([^\]}]*)', one.rest)
    axes = [int(axis) for axis in re.findall(r"\d+", found[1])] if found else []
    (_, out), *_ = arrays(one.shape)
    length = math.prod(left[axis] for axis in axes) if axes else 0
    return 2.0 * math.prod(out) * length, dtype if dtype in ("f32", "bf16") else "bf16"


def _attention(one: Instruction, shapes: dict[str, str]) -> tuple[float, str]:
    """4 x queries x keys x features; a backward pass takes 2.5 times as many."""
    halves = [arrays(shapes.get(name, "")) for name in one.operands]
    parts = [part[0] for part in halves if part and len(part[0][1]) == 4]
    if len(parts) < 2:
        return 0.0, "bf16"
    (dtype, queries), (_, keys) = parts[:2]
    backward = 2.5 if "Backward" in one.target else 1.0
    batch, *_ = queries
    # Tokens and heads lie in either order; features are last.
    pairs = queries[1] * queries[2] * keys[1] * keys[2] / _heads(queries, keys)
    return backward * 4.0 * batch * pairs * queries[3], dtype


def _heads(queries: tuple[int, ...], keys: tuple[int, ...]) -> int:
    """The axis that is no token axis: the smaller one of the two."""
    return min(queries[1], queries[2], keys[1], keys[2])


def _read(inner: list[Instruction], index: int, whole: int) -> float:
    """Bytes of one operand of a fusion: those of its slices, if it is only sliced."""
    (name,) = (
        one.name
        for one in inner
        if one.op == "parameter" and one.operands == (str(index),)
    )
    users = [one for one in inner if name in one.operands]
    first = all(one.operands[0] == name for one in users)
    kinds = {one.op for one in users}
    if users and first and kinds <= {"dynamic-slice", "slice", "gather"}:
        return min(whole, sum(size(one.shape) for one in users))
    if users and first and kinds == {"dynamic-update-slice"}:
        return 0
    return whole


def _written(inner: list[Instruction], whole: int) -> float:
    """Bytes that a fusion writes: those of the update, if it updates in place."""
    (root,) = (one for one in inner if one.root)
    if root.op != "dynamic-update-slice":
        return whole
    shapes = {one.name: one.shape for one in inner}
    return size(shapes.get(root.operands[1], root.shape))
