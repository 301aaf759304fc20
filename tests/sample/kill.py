"""Kills a set of samples and its evaluation at random moments; both must end alike.

    python tests/sample/kill.py [kills] [seed]

The commands are `python -m jaxguide.sample --config.num_samples` with a made network
and `python -m jaxguide.evaluate` of that set. Each is killed by SIGKILL as soon as a
random number of its files is there and a random fraction of a second has passed, and
started again. At the end every file of the set has to be that of an unbroken run, byte
for byte, and so has every number of the evaluation.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests import struck, tiny_checkpoint

FILES = 120
PER_FILE = 8


class Files(struck.Struck):
    """A command whose progress is the number of files of a pattern."""

    def __init__(self, folder: Path, module: str, words: list[str], pattern: str):
        super().__init__(folder, module, words)
        self.pattern = pattern

    def progress(self) -> int:
        """Finished files."""
        return len(list(self.folder.rglob(self.pattern)))


def sampling(folder: Path, checkpoint: str) -> Files:
    """A set of 120 files."""
    words = [
        f"--config={struck.ROOT / 'configs' / 'demo.py'}:tiny",
        f"--config.checkpoint={checkpoint}",
        f"--config.folder={folder}",
        f"--config.num_samples={FILES * PER_FILE}",
        f"--config.shard_size={PER_FILE}",
        "--config.columns=('cfg',)",
        "--config.adm_file=True",
    ]
    return Files(folder, "jaxguide.sample", words, "samples-*.npz")


def judging(folder: Path, samples: Path) -> Files:
    """An evaluation of that set by the digits, with features in as many files."""
    words = [
        f"--config={struck.ROOT / 'configs' / 'evaluate.py'}:tiny",
        f"--config.samples={samples}",
        "--config.network=tests.evaluate.toy_network:network",
        "--config.metrics=fd,kd,precision,recall,density,coverage",
        "--config.num_samples=0",
        f"--config.shard_size={PER_FILE}",
        f"--config.cache={folder / 'cache'}",
        f"--config.folder={folder}",
    ]
    return Files(folder, "jaxguide.evaluate", words, "features-*.npz")


def kill(
    broken: Files, whole: Files, kills: int, draw: random.Random
) -> tuple[list[int], int]:
    """Kills it so often and lets it end; the files at each blow, and in the end."""
    files = whole.progress()
    targets = sorted(draw.sample(range(files), kills))
    numbers = [
        broken.strike(target, draw.uniform(0, 0.03), signal.SIGKILL)
        for target in targets
    ]
    broken.finish()
    return numbers, files


def same_files(one: Path, other: Path) -> int:
    """Raises unless both folders hold the same samples; the number of files."""
    names = sorted(file.name for file in one.glob("*.*z"))
    assert names == sorted(file.name for file in other.glob("*.*z"))
    for name in [*names, "grid.png"]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    return len(names) + 1


def same_numbers(one: Path, other: Path) -> int:
    """Raises unless both evaluations found the same; how many numbers."""
    found, others = (
        json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        for folder in (one, other)
    )
    measures = found["samples"][0]["measures"]
    assert measures == others["samples"][0]["measures"]
    assert found["floor"] == others["floor"]
    return len(measures)


def both(folder: Path, *, kills: int, seed: int) -> list[str]:
    """Kills both commands; what was found, in lines."""
    draw = random.Random(seed)
    checkpoint = tiny_checkpoint.write(folder / "tiny.safetensors")
    whole, broken = (
        sampling(folder / name, checkpoint) for name in ("set", "broken_set")
    )
    whole.finish()
    numbers, files = kill(broken, whole, kills, draw)
    same = same_files(whole.folder, broken.folder)
    lines = [f"set killed with {numbers} of {files} files: {same} files are equal"]
    alone, broken = (
        judging(folder / name, whole.folder) for name in ("found", "broken_found")
    )
    alone.finish()
    numbers, files = kill(broken, alone, kills, draw)
    same = same_numbers(alone.folder, broken.folder)
    told = f"evaluation killed with {numbers} of {files} files: {same} measures are"
    return [*lines, f"{told} equal"]


def main(kills: int = 10, seed: int = 0) -> None:
    """Prints the moments of the kills and what was compared."""
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(both(Path(folder), kills=kills, seed=seed)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
