"""Samples pictures: `python -m jaxguide.sample --config configs/demo.py`."""

import dataclasses
import time
from pathlib import Path

from jaxguide import cli, listing, pictures, sampling
from jaxguide.config_sampling import SampleConfig


def run(config: SampleConfig) -> None:
    """Prints what will run, samples, and writes `grid.png` and `run.json`."""
    job = sampling.build_job(config)
    print(job.describe(), flush=True)
    start = time.perf_counter()
    columns = dict(sampling.run(job))
    seconds = round(time.perf_counter() - start, 3)
    folder = Path(config.folder).expanduser()
    names = [job.weights.class_names[label] for label in job.labels]
    images = {title: column.images for title, column in columns.items()}
    pictures.write_sheet(folder / "grid.png", images, names, zoom=config.zoom)
    text = sampling.as_json(_record(job, columns, seconds))
    (folder / "run.json").write_text(text, encoding="utf-8")
    print(f"wrote {folder / 'grid.png'} and run.json in {seconds:.1f} s")


def _record(job: sampling.Job, columns: dict[str, sampling.Column], seconds: float):
    """The resolved config, costs, timings and versions."""
    costs = job.costs()
    timings = {
        title: {
            "nfe_per_image": costs[title].nfe,
            "flops_per_image": costs[title].flops,
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
    cli.run(run, listing=listing.text)


if __name__ == "__main__":
    main()
