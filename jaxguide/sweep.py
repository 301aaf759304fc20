"""Sweeps scales, weights and windows: `python -m jaxguide.sweep --config FILE`."""

import dataclasses
from pathlib import Path

from jaxguide import cli, listing, sampling, sweeping
from jaxguide.config_sweep import SweepConfig
from jaxguide.hosts import ALONE, Hosts


def run(config: SweepConfig, processes: Hosts = ALONE) -> None:
    """Prints what will run, samples, and writes pictures, `sweep.csv`, `run.json`.

    The first of several processes does it alone.
    """
    if processes.index:
        return
    plan = sweeping.build(config)
    print(plan.describe(), flush=True)
    outcome = sweeping.run(plan)
    folder = Path(config.folder).expanduser()
    sweeping.write_csv(folder / "sweep.csv", outcome)
    files = sweeping.write_sheets(folder, plan, outcome)
    files += sweeping.write_measures(folder, plan, outcome)
    text = sampling.as_json(_record(plan, outcome))
    (folder / "run.json").write_text(text, encoding="utf-8")
    names = ", ".join(file.name for file in files)
    print(f"wrote {folder}: {names}, sweep.csv and run.json")


def _record(plan: sweeping.Sweep, outcome: sweeping.Outcome):
    """The resolved config, timings and versions."""
    return {
        "config": dataclasses.asdict(plan.job.config),
        "checkpoint": plan.job.weights.note,
        "points": len(outcome.results),
        "compile_seconds": [round(seconds, 3) for seconds in outcome.compile_seconds],
        "run_seconds": round(sum(result.seconds for result in outcome.results), 3),
        **sampling.environment(),
    }


def main() -> None:
    """The command line."""
    cli.run(run, listing=listing.text)


if __name__ == "__main__":
    main()
