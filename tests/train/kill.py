"""Kills a training run at random moments and compares its end with an unbroken run.

    python tests/train/kill.py [kills] [seed]

The run is `python -m jaxguide.train` on the digits. It is killed by SIGKILL as soon as
its log shows a random step and a random fraction of a second has passed, and started
again. At the end every array of its last checkpoint and every line of its loss curve
have to be those of the unbroken run, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests import struck


@dataclasses.dataclass(frozen=True)
class Blow:
    """A moment at which a run was struck.

    Attributes:
        step: of the last line of the log; -1 is none.
        saved: newest complete checkpoint; -1 is none.
        saving: whether another one was being written.
    """

    step: int
    saved: int
    saving: bool


class Run(struck.Struck):
    """One run of training in a folder of its own."""

    def __init__(self, folder: Path, steps: int):
        words = [
            f"--config={struck.ROOT / 'configs' / 'digits.py'}:tiny",
            f"--config.folder={folder}",
            f"--config.steps={steps}",
            "--config.ema=(0.9, 0.99)",
            "--config.log_every=3",
            "--config.save_every=7",
            "--config.evaluate_every=10",
            "--config.snapshot_every=1000000",
        ]
        super().__init__(folder, "jaxguide.train", words)

    def blow(self, step: int, delay: float, number: int) -> Blow:
        """Strikes when the log shows `step`; what was there then."""
        logged = self.strike(step, delay, number)
        names = [path.name for path in (self.folder / "checkpoints").glob("*")]
        whole = [int(name) for name in names if name.isdigit()]
        return Blow(logged, max(whole, default=-1), len(names) > len(whole))

    def curve(self) -> list[dict]:
        """Step and losses of every line of the log; a cut line does not count."""
        rows = []
        file = self.folder / "metrics.jsonl"
        for line in file.read_text().splitlines() if file.exists() else []:
            if line.endswith("}"):
                row = json.loads(line)
                names = ("step", "loss", "grad_norm", "eval_loss")
                rows.append({name: row[name] for name in names if name in row})
        return rows

    def progress(self) -> int:
        """The last step of the log."""
        rows = self.curve()
        return rows[-1]["step"] if rows else -1

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """Every array of a checkpoint by its place in the state."""
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(self.folder / "checkpoints" / str(step) / "state")
        flat = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def compare(one: Run, other: Run, step: int) -> int:
    """Raises unless both ended alike; the number of arrays."""
    assert one.curve() == other.curve(), "another loss curve"
    arrays, others = one.arrays(step), other.arrays(step)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.tobytes() == others[name].tobytes(), f"{name} differs"
    return len(arrays)


def kill(folder: Path, *, kills: int, steps: int, seed: int) -> tuple[list[Blow], int]:
    """The moments of the kills, and how many arrays were found equal."""
    draw = random.Random(seed)
    whole, broken = Run(folder / "whole", steps), Run(folder / "broken", steps)
    whole.finish()
    targets = sorted(draw.sample(range(3, steps - 30), kills))
    blows = [
        broken.blow(step, draw.uniform(0, 0.2), signal.SIGKILL) for step in targets
    ]
    broken.finish()
    return blows, compare(whole, broken, steps)


def main(kills: int = 10, seed: int = 0) -> None:
    """Prints the moments of the kills and what was compared."""
    with tempfile.TemporaryDirectory() as folder:
        blows, count = kill(Path(folder), kills=kills, steps=300, seed=seed)
    for blow in blows:
        saving = ", another one half written" if blow.saving else ""
        print(f"killed after step {blow.step}; checkpoint {blow.saved}{saving}")
    print(f"{count} arrays and the loss curve equal those of the unbroken run")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
