"""Curves of a sweep: measures against the first axis, and against what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Dot(NamedTuple):
    """One point of a curve."""

    line: str  # which curve
    x: float  # value of the first axis
    nfe: float  # per image
    value: float  # of the measure


def write_curves(
    file: Path,
    dots: Sequence[Dot],
    *,
    axis: str,
    measure: str,
    floor: float | None = None,
) -> None:
    """Two panels: the measure over the first axis, and over evaluations per image.

    Args:
        file: of the PNG; its folder is made if missing.
        dots: points, in order along their curves.
        axis: name of the first axis.
        measure: title of the measure.
        floor: what real images reach, drawn as a dashed line.
    """
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for line in dict.fromkeys(dot.line for dot in dots):
        along = [dot for dot in dots if dot.line == line]
        values = [dot.value for dot in along]
        (drawn,) = left.plot([dot.x for dot in along], values, "o-", label=line or None)
        right.plot(
            [dot.nfe for dot in along], values, "o", alpha=0.7, color=drawn.get_color()
        )
    for panel in (left, right):
        panel.grid(alpha=0.3)
        if floor is not None:
            panel.axhline(floor, color="grey", linestyle="--", linewidth=1)
    left.set(xlabel=axis, ylabel=measure)
    right.set(xlabel="network evaluations per image")
    if any(dot.line for dot in dots):
        left.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
