"""Samples pictures: `python -m jaxguide.sample --config configs/demo.py`.

With `--config.num_samples=50000` it writes a set of samples for evaluation instead, on
all devices of all hosts; a killed run carries on with the same command.
"""

import dataclasses
import time
from pathlib import Path

import numpy as np

from jaxguide.runtime import flags, sheets
from jaxguide.runtime.hosts import ALONE, Hosts
from jaxguide.sample import columns as sampling, jobs, listing
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.sets import SampleSet, write_adm_file, write_set

SHOWN = 64


def run(config: SampleConfig, processes: Hosts = ALONE) -> None:
    """A picture, which the first process makes alone, or a set of samples."""
    if processes.index and not config.num_samples:
        return
    job = jobs.build_job(config)
    folder = Path(config.folder).expanduser()
    if processes.index == 0:
        print(job.describe(), flush=True)
    start = time.perf_counter()
    if not config.num_samples:
        _picture(job, folder, start)
    elif not write_set(job, processes.share):
        print(f"the files of host {processes.index} are written; others are missing")
    elif processes.index == 0 or not processes.joined:
        _finish(job, folder, time.perf_counter() - start)


def _picture(job: jobs.SampleJob, folder: Path, start: float) -> None:
    """Samples, and writes `grid.png` and `run.json`."""
    columns = dict(sampling.run(job))
    seconds = round(time.perf_counter() - start, 3)
    names = [job.weights.class_names[label] for label in job.labels]
    images = {title: column.images for title, column in columns.items()}
    sheets.write_sheet(folder / "grid.png", images, names, zoom=job.config.zoom)
    text = sampling.as_json(_record(job, columns, seconds))
    (folder / "run.json").write_text(text, encoding="utf-8")
    print(f"wrote {folder / 'grid.png'} and run.json in {seconds:.1f} s")


def _finish(job: jobs.SampleJob, folder: Path, seconds: float) -> None:
    """Of a finished set: its first images as a picture, and `samples.npz` if wanted."""
    samples = SampleSet(folder)
    first = next(iter(samples))
    count = min(SHOWN, len(first["images"]))
    edge = max(1, int(count**0.5))
    shown = first["images"][: edge * edge].astype(np.float32) / 127.5 - 1
    rows = shown.reshape(edge, edge, *shown.shape[1:])
    (title, *_) = job.columns
    sheets.write_sheet(
        folder / "grid.png", {title: rows}, [""] * edge, zoom=job.config.zoom
    )
    names = f"{folder}: {len(samples)} images in samples-*.npz, grid.png"
    if job.config.adm_file:
        write_adm_file(samples, folder / "samples.npz")
        names += ", samples.npz"
    print(f"wrote {names} ({seconds:.1f} s in this run)")


def _record(job: jobs.SampleJob, columns: dict[str, sampling.Column], seconds: float):
    """The resolved config, costs, timings and versions."""
    costs = job.costs()
    timings = {
        title: {
            "nfe_per_image": costs[title].nfe if title in costs else column.nfe,
            "flops_per_image": costs[title].flops if title in costs else None,
            "compile_seconds": round(column.compile_seconds, 3),
            "run_seconds": round(column.run_seconds, 3),
        }
        for title, column in columns.items()
    }
    return {
        "config": dataclasses.asdict(job.config),
        "checkpoint": job.weights.note,
        "columns": timings,
        "seconds": seconds,
        **sampling.environment(),
    }


def main() -> None:
    """The command line."""
    flags.run(run, listing=listing.text)


if __name__ == "__main__":
    main()
