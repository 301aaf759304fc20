"""Memory that importing a published checkpoint takes.

Makes a random file with the names and shapes of an official one, converts it by
`python -m jaxguide.convert` in a process of its own, and prints the largest resident
memory of that process beside the size of the file. The files are deleted.

Run:      python -m benchmarks.import_memory --model XL/2
Needs:    twice the size of the file on disk and about as much memory; PyTorch for .pt
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxguide import models
from jaxguide.convert import layouts, torch_file
from jaxguide.models.written import write_arrays


def make(path: Path, model: models.DiTConfig) -> None:
    """A file of random numbers in the layout of DiT."""
    rng = np.random.default_rng(0)
    arrays = {
        piece.name: rng.standard_normal(piece.shape, np.float32)
        for piece in layouts.official(model)
    }
    save = torch_file.save if path.suffix == ".pt" else None
    write_arrays("make", path, arrays, save=save)


def convert(path: Path, out: Path, dtype: str) -> tuple[int, float]:
    """Largest resident memory in bytes, and seconds, of one conversion."""
    words = ["-m", "jaxguide.convert", "--from", "dit", str(path), str(out)]
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *words, "--dtype", dtype], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"convert ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024, time.perf_counter() - start


def main() -> None:
    """Prints one line per kind of file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="XL/2")
    parser.add_argument("--kinds", default="safetensors,pt")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    model = models.dit_config(options.model, learn_sigma=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds.split(","):
            path, out = Path(folder) / f"made.{kind}", Path(folder) / "out.safetensors"
            make(path, model)
            size = path.stat().st_size
            peak, seconds = convert(path, out, options.dtype)
            print(
                f"{options.model} .{kind}: file {size / 1e9:.2f} GB, peak "
                f"{peak / 1e9:.2f} GB, {(peak - size) / 1e9:+.2f} GB over the file, "
                f"{seconds:.0f} s",
                flush=True,
            )
            path.unlink()
            out.unlink()


if __name__ == "__main__":
    main()
