"""`python -m tests.fuzz [--cases 900] [--seed 0] [--workers 2] [--kind KIND]`.

Prints how many cases ended in which way, and every one that ended badly.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests import tiny_checkpoint
from tests.fuzz import files, grammar, run
from tests.fuzz.cases import GOOD, Case, outcome
from tests.odd_files import published, weight_files

ROOT = Path(__file__).parents[2]


def prepare(folder: Path) -> None:
    """Writes the inputs; in a fork, since it starts JAX."""
    if not (child := os.fork()):
        files.write(folder, tiny_checkpoint.write, ROOT / "configs")
        from safetensors.numpy import save_file

        (folder / "weights").mkdir()
        save_file(published(), folder / "weights" / "published.safetensors")
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as place:
            odd = weight_files(Path(place), rng, count=60)
            for index, (_, path) in enumerate(odd):
                if Path(path).is_file():
                    name = f"{index}{Path(path).suffix}"
                    shutil.copy(path, folder / "weights" / name)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the inputs could not be written")


def draw(cases: list[Case], count: int, seed: int) -> list[Case]:
    """So many of every kind, in turn, until there are enough."""
    rng = np.random.default_rng(seed)
    kinds = collections.defaultdict(list)
    for index in rng.permutation(len(cases)):
        kinds[cases[index].program, cases[index].kind].append(cases[index])
    rows = list(kinds.values())
    drawn = []
    while rows and len(drawn) < count:
        drawn += [row.pop() for row in rows]
        rows = [row for row in rows if row]
    return drawn[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=900, help="0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", default="", help="only cases of this kind or program")
    parser.add_argument("--json", default="", help="file for the counts")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jaxguide-fuzz-") as place:
        inputs = Path(place)
        prepare(inputs)
        run.load()
        cases = grammar.all_cases(inputs, ROOT / "configs")
        cases = [c for c in cases if chosen.kind in ("", c.kind, c.program)]
        cases = draw(cases, chosen.cases or len(cases), chosen.seed)
        counts = collections.Counter()
        ends = run.run(cases, inputs, chosen.workers)
        for case, ended in zip(cases, ends, strict=True):
            name = outcome(case, ended)
            counts[name] += 1
            if name not in GOOD:
                said = ended.error.strip().splitlines()[-1:]
                words = shlex.join(word[:200] for word in case.words)
                print(f"{name}: {case.program} {words}\n    {said} {ended.left}")
    print(dict(counts), f"of {len(cases)}")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(counts), encoding="utf-8")


if __name__ == "__main__":
    main()
