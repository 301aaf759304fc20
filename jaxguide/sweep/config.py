"""The config of a sweep, and its axes into one guidance per point."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxguide.errors import InputError
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.guidance import Chain
from jaxguide.runtime.calls import lookup
from jaxguide.sample import build
from jaxguide.sample.build import TRANSFORMS
from jaxguide.sample.config import UNGUIDED, SampleConfig


@dataclass
class SweepConfig(SampleConfig):
    """One grid of guidances: `python -m jaxguide.sweep --config configs/sweep.py`.

    All fields of `SampleConfig`; `columns` names one column: the chain to sweep. And:

    Args:
        axes: "name.argument" -> its values, such as {"cfg.scale": (1.0, 2.0)}. Every
            combination is a point. The first axis runs along the rows of the picture,
            the last along the columns; those between make more pictures.
        score: with a reference, every point is judged: `score.reference`, `metrics`,
            `network`, `weights`, `protocol`, `num_reference` and `cache` count, on
            `num_samples` images of each point.
    """

    axes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    score: EvaluateConfig = field(default_factory=EvaluateConfig)


class Point(dict[str, float]):
    """Value of every axis at one point of the grid."""

    def __str__(self) -> str:
        return ", ".join(label(axis, value) for axis, value in self.items())


def label(axis: str, value: float) -> str:
    """An axis and a value, as written beside rows and columns."""
    return f"{axis}={value:g}"


def build_points(config: SweepConfig) -> list[Point]:
    """Every combination of the axes' values; the last axis changes fastest.

    Raises:
        InputError: if an axis names no entry of the guidance list, no argument of that
            entry, or has no values that are numbers.
    """
    if not config.axes:
        raise InputError(
            "sweep: need at least one axis, got axes={}. "
            "Write axes={'cfg.scale': (1.0, 2.0)}."
        )
    for axis, values in config.axes.items():
        _check_axis(config, axis, values)
    return [
        Point(zip(config.axes, values, strict=True))
        for values in itertools.product(*config.axes.values())
    ]


def _check_axis(config: SweepConfig, axis: str, values: Any) -> None:
    """Raises InputError unless `axis` can take `values`."""
    name, dot, argument = axis.partition(".")
    if not dot:
        raise InputError(
            f"sweep: need an axis 'name.argument', got {axis!r}. Write 'cfg.scale'."
        )
    picked = [entry["name"] for entry in _column(config)]
    lookup(f"sweep {axis}", name, dict.fromkeys(picked or [UNGUIDED]))
    if picked.count(name) > 1:
        raise InputError(
            f"sweep: need one entry named {name!r} to sweep {axis!r}, got "
            f"{picked.count(name)} in the column. Sweep a chain with one of them."
        )
    parameters = inspect.signature(TRANSFORMS[name]).parameters
    lookup(f"sweep {axis}", argument, dict.fromkeys(parameters))
    numbers = isinstance(values, Sequence) and all(map(_is_number, values))
    if isinstance(values, str) or not numbers or not values:
        raise InputError(
            f"sweep: need numbers for the axis {axis!r}, got {values!r}. "
            f"Write axes={{{axis!r}: (1.0, 2.0)}}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _column(config: SweepConfig) -> list[Mapping[str, Any]]:
    """The entries of the one column that is swept."""
    if len(config.columns) != 1:
        raise InputError(
            "sweep: need one column, the chain to sweep, got "
            f"columns={config.columns!r}. Write columns=('cfg+sg_prev',)."
        )
    names = config.columns[0].split("+")
    return [entry for entry in config.guidance if entry.get("name") in names]


def build_chain(config: SweepConfig, point: Mapping[str, float]) -> Chain:
    """The chain of the column with the values of a point filled in."""
    entries = [dict(entry) for entry in _column(config)]
    for axis, value in point.items():
        name, _, argument = axis.partition(".")
        for entry in entries:
            if entry["name"] == name:
                entry[argument] = value
    return build.build_guidance(entries)
