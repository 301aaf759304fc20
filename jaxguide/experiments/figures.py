"""The frame of all figures: sizes, and colours for colour-blind readers too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Okabe & Ito 2008, Color Universal Design: distinct to (nearly) all readers.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#202020", "#8a8a8a"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
MARKERS = "os^Dvx"


def panels(
    columns: int, rows: int = 1, *, width: float = 3.2, height: float = 3.0, **how: Any
) -> tuple[Any, np.ndarray]:
    """A figure and its axes [rows, columns]."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def histogram(panel: Any, points: np.ndarray, bins: np.ndarray, **how: Any) -> None:
    """The density of points on a line, filled."""
    look = {"color": GREY, "alpha": 0.45, "label": "samples"} | how
    panel.hist(points.ravel(), bins=bins, density=True, **look)


def curves(
    panel: Any, x: Sequence[float], lines: Mapping[str, Sequence[float]], **how: Any
) -> None:
    """Lines with markers; they differ in colour and in marker."""
    for (name, values), colour, marker in zip(
        lines.items(), CYCLE, MARKERS, strict=False
    ):
        panel.plot(x, values, color=colour, marker=marker, label=name, ms=4, **how)
    panel.grid(alpha=0.3)


def scatter(panel: Any, points: np.ndarray, edge: float, **how: Any) -> None:
    """Points in the plane, in a square of half an edge `edge`."""
    look = {"s": 1.5, "color": BLUE, "linewidths": 0, "alpha": 0.6} | how
    panel.scatter(*points.T, **look)
    panel.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    panel.tick_params(labelsize="small")


def legend_below(figure: Any, panel: Any, columns: int = 3) -> None:
    """The legend of one panel for all of them, where it hides nothing."""
    handles, labels = panel.get_legend_handles_labels()
    how = {"loc": "outside lower center", "ncols": columns, "fontsize": "small"}
    figure.legend(handles, labels, frameon=False, **how)
