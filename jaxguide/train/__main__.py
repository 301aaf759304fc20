"""Trains a network: `python -m jaxguide.train --config configs/digits.py`.

The same command carries on where a run has stopped. Exit codes:

    0    all steps are done
    2    one line says what is wrong: a field, a file, a folder that cannot be written,
         a loss or gradient that is not finite; the last checkpoint is good
    75   run the same command again: SIGTERM (preemption), and the state is saved; or
         another process of the run is gone, and the last checkpoint is good
    130  Ctrl-C: the state is saved; a second Ctrl-C leaves at once, without saving
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from jaxguide import train
from jaxguide.data import config as data_config
from jaxguide.errors import InputError
from jaxguide.runtime import flags, hosts
from jaxguide.runtime.hosts import ALONE, Hosts
from jaxguide.train import config, watch


def run(settings: config.TrainConfig, processes: Hosts = ALONE) -> None:
    """Builds what the config describes and trains it."""
    if processes.count > 1 and not processes.joined:
        raise InputError(
            "train: need processes that are connected, got num_processes="
            f"{processes.count} without --coordinator. Add the address of process 0."
        )
    dataset = data_config.build_dataset(settings.data)
    experiment = config.build_experiment(settings, dataset)
    loop = config.build_loop(settings)
    snapshot = watch.build_snapshot(settings, dataset)
    evaluate = watch.build_evaluation(settings, dataset)
    if hosts.is_first():
        _write_config(Path(settings.folder).expanduser(), settings)
    with train.Stop() as stop:
        state = train.run(experiment, loop, snapshot, evaluate, stop)
    if stop.code and int(state.step) < loop.steps:
        hosts.say(f"stopped after step {int(state.step)}; the same command carries on")
        raise SystemExit(stop.code)
    hosts.say(f"{int(state.step)} steps done; weights and samples are in {loop.folder}")


def _write_config(folder: Path, settings: config.TrainConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(settings), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    try:
        flags.run(run, about=__doc__ or "", saves=True)
    except KeyboardInterrupt:  # not waiting for a checkpoint that is being written
        os._exit(train.INTERRUPTED)


if __name__ == "__main__":
    main()
