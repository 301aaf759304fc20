"""Sweeps scales, weights and windows: `python -m jaxguide.sweep --config FILE`."""

import dataclasses
from pathlib import Path

from jaxguide.runtime import flags
from jaxguide.runtime.hosts import ALONE, Hosts
from jaxguide.sample import columns, listing
from jaxguide.sweep import grid
from jaxguide.sweep.config import SweepConfig


def run(config: SweepConfig, processes: Hosts = ALONE) -> None:
    """Prints what will run, samples, and writes pictures, `sweep.csv`, `run.json`.

    The first of several processes does it alone.
    """
    if processes.index:
        return
    plan = grid.build(config)
    print(plan.describe(), flush=True)
    outcome = grid.run(plan)
    folder = Path(config.folder).expanduser()
    grid.write_csv(folder / "sweep.csv", outcome)
    files = grid.write_sheets(folder, plan, outcome)
    files += grid.write_measures(folder, plan, outcome)
    text = columns.as_json(_record(plan, outcome))
    (folder / "run.json").write_text(text, encoding="utf-8")
    names = ", ".join(file.name for file in files)
    print(f"wrote {folder}: {names}, sweep.csv and run.json")


def _record(plan: grid.Sweep, outcome: grid.Outcome):
    """The resolved config, timings and versions."""
    return {
        "config": dataclasses.asdict(plan.job.config),
        "checkpoint": plan.job.weights.note,
        "points": len(outcome.results),
        "compile_seconds": [round(seconds, 3) for seconds in outcome.compile_seconds],
        "run_seconds": round(sum(result.seconds for result in outcome.results), 3),
        **columns.environment(),
    }


def main() -> None:
    """The command line."""
    flags.run(run, listing=listing.text)


if __name__ == "__main__":
    main()
