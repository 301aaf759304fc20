"""Side-by-side timings: alternating rounds, medians of paired ratios, tables."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """Seconds of one variant, one per round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    def ratio(self, other: "Timing") -> float:
        """How much longer than `other`: the median over rounds, each with its own."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def spread(self, other: "Timing") -> tuple[float, float]:
        """The least and the largest of the ratios whose median is `ratio`."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        return min(ratios), max(ratios)


def measure(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times every variant once per round, in turn; odd rounds run backwards.

    A variant must have been called before, and wait for its own result.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds):
        names = list(variants) if index % 2 == 0 else list(reversed(variants))
        for name in names:
            start = clock()
            variants[name]()
            seconds[name].append(clock() - start)
    return {name: Timing(values) for name, values in seconds.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]
        return f"| {' | '.join(padded)} |"

    first, *others = widths
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def machine() -> dict[str, Any]:
    """Processor, cores, and how busy they are."""
    load = [round(value, 2) for value in os.getloadavg()]
    return {"processor": _processor(), "cores": os.cpu_count(), "load_average": load}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":")[1].strip() for line in file if "model name" in line
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
