"""Trains a network: `python -m jaxguide.train --config configs/digits.py`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from jaxguide import cli, config, config_watch, training
from jaxguide.training import hosts


def run(settings: config.TrainConfig) -> None:
    """Builds what the config describes and trains it."""
    hosts.start(**dataclasses.asdict(settings.hosts))
    dataset = config.build_dataset(settings.data)
    experiment = config.build_experiment(settings, dataset)
    loop = config.build_loop(settings)
    snapshot = config_watch.build_snapshot(settings, dataset)
    evaluate = config_watch.build_evaluation(settings, dataset)
    if hosts.is_first():
        _write_config(Path(settings.folder).expanduser(), settings)
    state = training.run(experiment, loop, snapshot, evaluate)
    hosts.say(f"{int(state.step)} steps done; weights and samples are in {loop.folder}")


def _write_config(folder: Path, settings: config.TrainConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dataclasses.asdict(settings), indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    cli.run(run)


if __name__ == "__main__":
    main()
