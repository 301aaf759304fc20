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
import functools
from pathlib import Path

from jaxguide import train
from jaxguide.data import config as data_config
from jaxguide.errors import InputError
from jaxguide.runtime import devices, flags, hosts, shards
from jaxguide.runtime.hosts import ALONE, Hosts
from jaxguide.train import config, watch


def run(settings: config.TrainConfig, processes: Hosts = ALONE) -> None:
    """Builds what the config describes and trains it."""
    if processes.count > 1 and not processes.joined:
        raise InputError(
            "train: need processes that are connected, got num_processes="
            f"{processes.count} without --coordinator. Add the address of process 0."
        )
    # First: a signal that comes while data are opened must not go unheard.
    with train.Stop() as stop:
        loop = config.build_loop(settings)
        dataset = data_config.build_dataset(settings.data)
        experiment = config.build_experiment(settings, dataset)
        dtype = devices.computing_dtype("train model.dtype", settings.model.dtype)
        hosts.say(f"{devices.summary()}; computes in {dtype} (model.dtype)")
        snapshot = watch.build_snapshot(settings, dataset)
        evaluate = watch.build_evaluation(settings, dataset)
        keep = functools.partial(_write_config, loop.folder, settings)
        state = train.run(experiment, loop, snapshot, evaluate, stop, accepted=keep)
    if stop.code and int(state.step) < loop.steps:
        hosts.say(f"stopped after step {int(state.step)}; the same command carries on")
        raise SystemExit(stop.code)
    hosts.say(f"{int(state.step)} steps done; weights and samples are in {loop.folder}")


def _write_config(folder: Path, settings: config.TrainConfig) -> None:
    shards.write_json(folder / "config.json", dataclasses.asdict(settings))


def main() -> None:
    """The command line."""
    flags.run(run, about=__doc__ or "", saves=True)


if __name__ == "__main__":
    main()
