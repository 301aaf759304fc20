"""A grid of guidances, sampled and written: one compilation per structure of chain."""

import csv
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance import Chain, Cost, Network
from jaxguide.runtime import devices, sheets as pictures
from jaxguide.runtime.progress import Progress
from jaxguide.sample import columns as sampling, jobs
from jaxguide.sample.build import with_channels
from jaxguide.sample.sets import set_labels, to_uint8
from jaxguide.samplers import Points, make_points, structure, sweep
from jaxguide.sweep import config as sweep_config
from jaxguide.sweep.config import Point, SweepConfig, label
from jaxguide.sweep.curves import Dot, write_curves
from jaxguide.sweep.score import Scorer, build_scorer

MEASURES = ("mean", "std", "saturated")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Everything a config describes, built and checked before anything runs."""

    job: jobs.SampleJob
    axes: dict[str, tuple[float, ...]]
    points: list[Point]
    chains: list[Chain]
    costs: list[Cost]
    scorer: Scorer | None

    def groups(self) -> list[list[int]]:
        """Points that share a program: all, unless an axis changes the structure."""
        groups: dict[Any, list[int]] = {}
        for index, chain in enumerate(self.chains):
            groups.setdefault(structure(chain), []).append(index)
        return list(groups.values())

    def describe(self) -> str:
        """What will run, for people."""
        column, nfe = next(iter(self.job.columns)), [cost.nfe for cost in self.costs]
        span = f"{min(nfe)}" if min(nfe) == max(nfe) else f"{min(nfe)} to {max(nfe)}"
        axes = [
            f"axis     {axis}: {', '.join(f'{value:g}' for value in values)}"
            for axis, values in self.axes.items()
        ]
        groups = len(self.groups())
        last = (
            f"points   {len(self.points)} of {column}, {span} NFE per image each, in "
            f"{groups} compilation{'s' * (groups > 1)}"
        )
        lines = self.job.describe().splitlines()
        kept = [line for line in lines if line[:6] != "column"]
        return "\n".join([*kept, *axes, last, *self._measures()])

    def _measures(self) -> list[str]:
        """The measures, with what real images reach."""
        if self.scorer is None:
            return []
        count = self.scorer.floor_count
        return [
            f"measure  {self.scorer.title(name)}; real against real, {count} images: "
            f"{measured.value:.4g} ± {measured.spread:.1g}"
            for name, measured in self.scorer.floor.items()
        ]


class Result(NamedTuple):
    """What came of one point."""

    point: Point
    images: np.ndarray  # [classes, per_class, H, W, C] in about [-1, 1]
    seconds: float  # of sampling, without compilation
    cost: Cost
    number: int  # of all its images, which the measures judge
    measures: dict[str, float]


class Outcome(NamedTuple):
    """What came of a sweep."""

    results: list[Result]  # in the order of the points
    compile_seconds: list[float]  # one per compilation


def build(config: SweepConfig, scorer: Scorer | None = None) -> Sweep:
    """Builds all that the config names.

    Args:
        config: of the sweep.
        scorer: one that was built before, for several sweeps; None builds that of the
            config.

    Raises:
        InputError: for anything wrong in the config, with the fix.
    """
    points = sweep_config.build_points(config)
    chains = [sweep_config.build_chain(config, point) for point in points]
    if config.parallel != "data":
        raise InputError(
            f"sweep: need parallel='data', got parallel={config.parallel!r}. "
            "Every device has its own images and a copy of the weights."
        )
    job = jobs.build_job(config)
    chains = [with_channels(chain, config, job.weights) for chain in chains]
    costs = [job.cost(chain) for chain in chains]
    scorer = scorer or build_scorer(config.score, config.num_samples)
    return Sweep(job, dict(config.axes), points, chains, costs, scorer)


def run(plan: Sweep) -> Outcome:
    """Samples every point from the same noise; shows progress."""
    labels, numbers = _drawn(plan.job)
    size = sampling.batch_size(plan.job.config.batch_size, len(labels))
    batches = -(-len(labels) // size)
    steps = len(plan.points) * batches * plan.job.config.num_steps
    progress = Progress(f"{len(plan.points)} points", steps)
    results: dict[int, Result] = {}
    compile_seconds = []
    for group in plan.groups():
        points = make_points(
            [plan.chains[index] for index in group],
            path=plan.job.network.path,
            grid=plan.job.grid,
            sampler=plan.job.fixed(),
        )
        start = time.perf_counter()
        sample = _compile(plan.job, points[:1], size)
        compile_seconds.append(time.perf_counter() - start)
        for place, index in enumerate(group):
            here = points[place : place + 1]
            start = time.perf_counter()
            sampled = functools.partial(_counted, progress, sample, here, plan.job)
            x0 = devices.in_batches(sampled, (labels, numbers), size)
            seconds = time.perf_counter() - start
            results[index] = _result(plan, index, x0, seconds)
    progress.close()
    return Outcome([results[index] for index in sorted(results)], compile_seconds)


def _drawn(job: jobs.SampleJob) -> tuple[np.ndarray, np.ndarray]:
    """Labels and numbers of the images of every point."""
    if not job.config.num_samples:
        return sampling.images(job)
    labels = set_labels(job.config, job.labels)
    return labels, np.arange(len(labels), dtype=np.int32)


def _result(plan: Sweep, index: int, x0: np.ndarray, seconds: float) -> Result:
    """What came of a point: its measures, and the images that the picture shows."""
    job = plan.job
    sampling.check_finite(str(plan.points[index]), x0, _drawn(job)[0])
    measures = {}
    if plan.scorer is not None:
        images = sampling.decoded(job, x0)
        measures = plan.scorer(np.asarray(to_uint8(images, job.config.rounding)))
    shown = sampling.by_class(job, sampling.decoded(job, x0[_shown(job)]))
    return Result(
        plan.points[index], shown, seconds, plan.costs[index], len(x0), measures
    )


def _shown(job: jobs.SampleJob) -> np.ndarray:
    """Which images the picture shows: the first ones of every class."""
    labels, _ = _drawn(job)
    count = job.config.per_class
    places = [np.flatnonzero(labels == label)[:count] for label in job.labels]
    if min(map(len, places)) < count:
        raise InputError(
            f"sweep: need per_class={count!r} images of every class, got "
            f"num_samples={job.config.num_samples!r}. Make more samples."
        )
    return np.concatenate(places)


def _counted(
    progress: Progress, sample: Any, here: Points, job: jobs.SampleJob, rows: Any
) -> Any:
    """One batch of one point."""
    x0 = jax.block_until_ready(sample(here, job.network, job.networks, *rows))
    progress.step(job.config.num_steps)
    return x0


def _compile(job: jobs.SampleJob, example: Points, size: int) -> Any:
    """The compiled sampler of any one point: (points, network, networks, ...)."""

    def sample(
        points: Points, network: Network, networks: Any, labels: Any, numbers: Any
    ) -> Any:
        count = jax.local_device_count()
        noise, named = jobs.inputs(job, networks, labels, numbers, count=count)
        return sweep(network, noise, labels, guidances=points, **named)[0]

    zeros = devices.split((np.zeros(size, np.int32), np.zeros(size, np.int32)))
    with jax.set_mesh(devices.local_mesh()):  # for kernels, see `jobs.make_mesh`
        lowered = jax.jit(sample).lower(example, job.network, job.networks, *zeros)
    return lowered.compile()


def write_csv(file: Path, outcome: Outcome) -> None:
    """One row per point: its values, what it took, plain statistics, and measures.

    `mean` and `std` are over all values of the images that are shown; `saturated` is
    the share of values beyond [-1, 1], which a picture clips. None of these three is a
    measure of quality; those of a scored sweep follow them, under their names.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        axes = list(outcome.results[0].point)
        spent = ["nfe_per_image", "least_nfe_per_image", "seconds", "images"]
        table.writerow([*axes, *spent, *MEASURES, *outcome.results[0].measures])
        for result in outcome.results:
            values, cost = result.images.astype(np.float64), result.cost
            took = [cost.nfe, cost.least_nfe, f"{result.seconds:.3f}", result.number]
            measured = [values.mean(), values.std(), (np.abs(values) > 1).mean()]
            numbers = [f"{number:.5f}" for number in measured]
            scores = [f"{value:.6g}" for value in result.measures.values()]
            table.writerow([*result.point.values(), *took, *numbers, *scores])


def write_measures(folder: Path, plan: Sweep, outcome: Outcome) -> list[Path]:
    """One picture of curves for every measure of a scored sweep."""
    if plan.scorer is None:
        return []
    first, *rest = plan.axes
    files = []
    for name in plan.scorer.names:
        title = plan.scorer.title(name)
        dots = [
            Dot(
                _title(result.point, rest),
                result.point[first],
                result.cost.nfe,
                result.measures[title],
            )
            for result in outcome.results
        ]
        floor = plan.scorer.floor.get(name)
        files.append(folder / f"curve-{name}.png")
        write_curves(
            files[-1],
            dots,
            axis=first,
            measure=title,
            floor=None if floor is None else floor.value,
        )
    return files


def write_sheets(folder: Path, plan: Sweep, outcome: Outcome) -> list[Path]:
    """Pictures: first axis along the rows, last along the columns, one file for every
    combination of those between; in a cell, one class per row."""
    first, *rest = plan.axes
    sheets: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for result in outcome.results:
        sheet = sheets.setdefault(_title(result.point, rest[:-1]), {})
        column = sheet.setdefault(_title(result.point, rest[-1:]), {})
        column[_title(result.point, [first])] = _mosaic(result.images)
    files = []
    for title, columns in sheets.items():
        files.append(folder / (f"sheet-{title}.png" if title else "sheet.png"))
        images = {name: np.stack(list(rows.values())) for name, rows in columns.items()}
        rows = list(next(iter(columns.values())))
        pictures.write_sheet(files[-1], images, rows, zoom=plan.job.config.zoom)
    return files


def _mosaic(images: np.ndarray) -> np.ndarray:
    """[classes, per_class, H, W, C] as one image [1, classes H, per_class W, C]."""
    classes, count, height, width, channels = images.shape
    rows = images.transpose(0, 2, 1, 3, 4)
    return rows.reshape(1, classes * height, count * width, channels)


def _title(point: Point, axes: list[str]) -> str:
    return ",".join(label(axis, point[axis]) for axis in axes)
