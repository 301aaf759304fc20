"""Guidance methods side by side on the embedded Fashion-MNIST network.

    python -m jaxguide.train --config configs/guided_fashion.py:weak    (and the others)
    python -m benchmarks.methods --companions outputs/guided-fashion

Every method is swept on one seed; the point of the least kernel distance is measured on
three other seeds, and timed in rounds that take the methods in turn. Of the study
"ablations" every point is measured on the three seeds, untimed. What was measured is
kept in the folder, so that a stopped run carries on. Writes a CSV of all points, a
table, a picture and, for the methods, the sweeps and samples of the best points.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from benchmarks.methods_arms import STUDIES, UNGUIDED, Arm
from benchmarks.timing import Timing
from jaxguide import data
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.runtime import sheets
from jaxguide.sweep import grid
from jaxguide.sweep.config import SweepConfig
from jaxguide.sweep.score import build_scorer

KERNEL = "KD-efficientnet-lite0"
OTHERS = ("precision", "recall", "density", "coverage")
SWEEP_SEED, SEEDS = 0, (1, 2, 3)
NEUTRAL = dict(name="cfg", scale=1.0)  # costs nothing; a sweep needs an axis
SHOWN = 4
ROUNDS = 3
MARKS = "osD^vPX"  # seven, with twenty colours: no pair comes twice
IN_A_SHEET = 6


class Cell(NamedTuple):
    """One point on one seed."""

    title: str
    setting: Mapping[str, Any]
    point: Mapping[str, float]
    seed: int
    images: int
    nfe: float
    measures: Mapping[str, float]

    @property
    def label(self) -> str:
        """Its numbers, for people."""
        learnt = {k: v for k, v in self.setting.items() if k == "learnt_scale"}
        numbers = {**learnt, **self.point}
        many = len({name.partition(".")[0] for name in numbers}) > 1
        return ", ".join(
            f"{name if many else name.partition('.')[2] or name} {value:.3g}"
            for name, value in numbers.items()
        )


class Bench:
    """Measures cells and remembers them.

    Args:
        folder: where they are kept.
        steps: of the sampler.
        batch: images per call.
        images: for the floor, what real images reach.
    """

    def __init__(self, folder: Path, steps: int, batch: int, images: int):
        self._folder, self._steps, self._batch = folder, steps, batch
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        scorer = build_scorer(
            EvaluateConfig(
                reference="fashion_mnist(split='test')",
                metrics=f"kd,{','.join(OTHERS)}",
                cache=str(folder / "features"),
            ),
            images,
        )
        assert scorer is not None
        self._scorer = scorer

    def floor(self) -> dict[str, float]:
        """What real images reach, by the titles of the measures."""
        return {
            self._scorer.title(name): measure.value
            for name, measure in self._scorer.floor.items()
        }

    def measure(self, arm: Arm, seed: int, images: int) -> list[Cell]:
        """Every point of every setting, from the disk if it was measured before."""
        cells = []
        for setting in arm.settings:
            alone = arm._replace(settings=[setting])
            file = self._file(alone, seed, images)
            if not file.is_file():
                self._run(alone, seed, images, file)
            cells += [Cell(**cell) for cell in json.loads(file.read_text())]
        return cells

    def seconds(self, arm: Arm, images: int) -> float:
        """What an image takes at an arm's only point, compilation apart."""
        job = self._sweep(arm, SEEDS[0], images, scored=False)
        return grid.run(job).results[0].seconds / images

    def samples(self, arm: Arm, seed: int, images: int) -> np.ndarray:
        """Images [classes, `SHOWN`, H, W, C] of an arm with one point."""
        return np.load(self._file(arm, seed, images).with_suffix(".npy"))[0]

    def _file(self, arm: Arm, seed: int, images: int) -> Path:
        identity = json.dumps([*arm[1:], seed, images, self._steps])
        name = hashlib.sha1(identity.encode()).hexdigest()[:16]
        return self._folder / "cells" / f"{name}.json"

    def _sweep(
        self, arm: Arm, seed: int, images: int, *, scored: bool = True
    ) -> grid.Sweep:
        """The points of an arm of one setting."""
        (setting,) = arm.settings
        guidance = [dict(entry) for entry in arm.guidance] or [NEUTRAL]
        config = SweepConfig(
            **{"checkpoint": "fashion", **setting},
            guidance=guidance,
            columns=("+".join(entry["name"] for entry in guidance),),
            axes={name: tuple(values) for name, values in arm.axes.items()}
            or {f"{guidance[0]['name']}.t_hi": (guidance[0].get("t_hi", 1.0),)},
            num_steps=self._steps,
            num_samples=images,
            batch_size=self._batch,
            per_class=SHOWN,
            seed=seed,
        )
        return grid.build(config, self._scorer if scored else None)

    def _run(self, arm: Arm, seed: int, images: int, file: Path) -> None:
        results = grid.run(self._sweep(arm, seed, images)).results
        cells = [
            Cell(
                title=arm.title,
                setting=dict(arm.settings[0]),
                point=dict(result.point) if arm.axes else {},
                seed=seed,
                images=result.number,
                nfe=result.cost.nfe,
                measures=result.measures,
            )
            for result in results
        ]
        np.save(file.with_suffix(".npy"), np.stack([one.images for one in results]))
        file.write_text(json.dumps([cell._asdict() for cell in cells]))
        for cell in cells:
            print(f"{cell.title}: {cell.label or '-'}: {cell.measures[KERNEL]:.4f}")


def best(cells: Sequence[Cell], arm: Arm) -> Arm:
    """The arm at its point of the least kernel distance."""
    cell = min(cells, key=lambda cell: cell.measures[KERNEL])
    axes = {axis: (value,) for axis, value in cell.point.items()}
    return arm._replace(axes=axes, settings=[cell.setting])


def points(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of every point, over its seeds."""
    by_point: dict[str, list[Cell]] = {}
    for cell in cells:
        key = json.dumps([cell.title, cell.setting, cell.point])
        by_point.setdefault(key, []).append(cell)
    return list(by_point.values())


def time_arms(
    bench: Bench, arms: Sequence[Arm], images: int, file: Path
) -> dict[str, Timing]:
    """Seconds per image by title: the arms in turn, `ROUNDS` times.

    They are kept in `file`; delete it to time again.
    """
    seconds: dict[str, list[float]] = {arm.title: [] for arm in arms}
    known = json.loads(file.read_text()) if file.is_file() else {}
    if set(known) == set(seconds):
        return {title: Timing(values) for title, values in known.items()}
    for _ in range(ROUNDS):
        for arm in arms:
            seconds[arm.title].append(bench.seconds(arm, images))
    file.write_text(json.dumps(seconds))
    return {title: Timing(values) for title, values in seconds.items()}


def over_seeds(cells: Sequence[Cell]) -> tuple[float, float]:
    """Mean and standard deviation of the kernel distance."""
    distances = [cell.measures[KERNEL] for cell in cells]
    return statistics.mean(distances), statistics.stdev(distances)


def row(cells: Sequence[Cell], times: Mapping[str, Timing]) -> list[str]:
    """A row of the table: one point over its seeds."""
    first, (mean, spread) = cells[0], over_seeds(cells)
    others = [statistics.mean(cell.measures[name] for cell in cells) for name in OTHERS]
    return [
        first.title,
        first.label or "-",
        f"{first.nfe:g}",
        *([f"{1000 * times[first.title].median:.1f}"] if times else []),
        f"{mean:.4f} ± {spread:.4f}",
        *(f"{value:.3f}" for value in others),
    ]


def head(times: Mapping[str, Timing]) -> list[str]:
    """Of the table."""
    cost = ["NFE", "ms per image"] if times else ["NFE"]
    return ["method", "at", *cost, KERNEL, *OTHERS]


def write_csv(file: Path, cells: Sequence[Cell], times: Mapping[str, Timing]) -> None:
    """One row per point and seed; the times are those of the method."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        cost = ["nfe", "seconds_per_image"] if times else ["nfe"]
        table.writerow(["method", "at", "seed", "images", *cost, KERNEL, *OTHERS])
        for cell in cells:
            took = [cell.seed, cell.images, f"{cell.nfe:g}"]
            took += [f"{times[cell.title].median:.5f}"] if times else []
            values = [f"{cell.measures[name]:.6g}" for name in (KERNEL, *OTHERS)]
            table.writerow([cell.title, cell.label, *took, *values])


def draw_costs(
    file: Path,
    measured: Sequence[Sequence[Cell]],
    times: Mapping[str, Timing],
    floor: float,
) -> None:
    """Kernel distance over evaluations, and over milliseconds, per image."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = colormaps["tab20"]
    for number, cells in enumerate(measured):
        first, (mean, spread) = cells[0], over_seeds(cells)
        label = " ".join([first.title, first.label]).strip()
        style = dict(fmt=MARKS[number % len(MARKS)], capsize=2, label=label)
        style["color"] = colours(number)
        left.errorbar(first.nfe, mean, spread, **style)
        right.errorbar(1000 * times[first.title].median, mean, spread, **style)
    for panel, name in ((left, "network evaluations"), (right, "milliseconds")):
        panel.axhline(floor, color="grey", linestyle="--", linewidth=1)
        panel.grid(alpha=0.3)
        panel.set(xlabel=f"{name} per image")
    left.set(ylabel=f"{KERNEL} (dashed: real images)")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize=9)
    figure.savefig(file, dpi=110)


def draw_points(file: Path, measured: Sequence[Sequence[Cell]], floor: float) -> None:
    """Kernel distance of every point, one colour per arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.25 * len(measured) + 1), layout="constrained")
    panel = figure.subplots()
    titles = list(dict.fromkeys(cells[0].title for cells in measured))
    for place, cells in enumerate(measured):
        colour = f"C{titles.index(cells[0].title) % 10}"
        mean, spread = over_seeds(cells)
        panel.errorbar(mean, place, xerr=spread, fmt="o", color=colour, capsize=2)
        if cells[0].title == UNGUIDED:
            panel.axvline(mean, color="grey", linestyle=":", linewidth=1)
    panel.axvline(floor, color="grey", linestyle="--", linewidth=1)
    names = [f"{cells[0].title}: {cells[0].label}".rstrip(": ") for cells in measured]
    panel.set_yticks(range(len(measured)), names)
    panel.invert_yaxis()
    panel.grid(alpha=0.3)
    panel.set(xlabel=f"{KERNEL} (dashed: real images; dotted: no guidance)")
    figure.savefig(file, dpi=110)


def write_samples(folder: Path, bench: Bench, arms: Sequence[Arm], images: int) -> None:
    """Sheets of `IN_A_SHEET` arms: rows are classes, from the same noise."""
    names = data.fashion_mnist(split="test").class_names
    for number, start in enumerate(range(0, len(arms), IN_A_SHEET)):
        sheet = {
            arm.title: bench.samples(arm, SEEDS[0], images)
            for arm in arms[start : start + IN_A_SHEET]
        }
        sheets.write_sheet(folder / f"samples-{number}.png", sheet, names, zoom=1)


def main() -> None:
    """Measures what is not measured yet, then writes everything."""
    parser = argparse.ArgumentParser("benchmarks.methods")
    parser.add_argument("--companions", type=Path, required=True)
    parser.add_argument("--study", choices=sorted(STUDIES), default="methods")
    parser.add_argument("--folder", type=Path, default=Path("outputs/methods"))
    parser.add_argument("--sweep", type=int, default=250, help="images, to find points")
    parser.add_argument("--images", type=int, default=500, help="per point and seed")
    parser.add_argument("--steps", type=int, default=20, help="of Euler")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--timed", type=int, default=100, help="images per timing")
    parser.add_argument("--only", default="", help="titles, joined by commas")
    options = parser.parse_args()

    arms = STUDIES[options.study](options.companions)
    only = [title for title in options.only.split(",") if title]
    arms = [arm for arm in arms if not only or arm.title in only]
    bench = Bench(options.folder, options.steps, options.batch, options.images)
    chosen, cells, swept = [], [], []
    for arm in arms:
        if options.study == "methods":
            tried = bench.measure(arm, SWEEP_SEED, options.sweep)
            arm, swept = best(tried, arm), swept + tried
        chosen.append(arm)
        for seed in SEEDS:
            cells += bench.measure(arm, seed, options.images)
    floor = bench.floor()
    measured = points(cells)
    times = {}
    if options.study == "methods":
        file = options.folder / "times.json"
        times = time_arms(bench, chosen, options.timed, file)
    reached = [f"{floor[KERNEL]:.4f}", *(f"{floor[name]:.3f}" for name in OTHERS)]
    gap = [""] * (len(head(times)) - len(reached) - 1)
    rows = [["real images (floor)", *gap, *reached]]
    text = timing.table(head(times), rows + [row(cells, times) for cells in measured])
    print(f"{options.images} images, seeds {SEEDS}; {timing.machine()['processor']}")
    print(text)
    stem = options.folder / options.study
    stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    write_csv(stem.with_suffix(".csv"), cells, times)
    picture = stem.with_suffix(".png")
    if options.study == "ablations":
        draw_points(picture, measured, floor[KERNEL])
    else:
        draw_costs(picture, measured, times, floor[KERNEL])
        write_csv(options.folder / "sweep.csv", swept, {})
        write_samples(options.folder, bench, chosen, options.images)


if __name__ == "__main__":
    main()
