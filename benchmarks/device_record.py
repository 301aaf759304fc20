"""What was measured on a device: one JSON file, and the table that is made of it."""

import dataclasses
import gc
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks import timing

PACKAGES = ("jaxguide", "jax", "jaxlib", "flax", "torch", "diffusers")
# Seconds that a measurement may take with its compilation, before one of its kind ran.
GUESS = {"check": 30.0, "jaxguide": 40.0, "training": 60.0, "torch": 20.0}
GUESS |= {"torch.compile": 90.0}


class Record:
    """What was measured so far, and the time that is left.

    Args:
        plan: of this run; its `budget` is in seconds.
        path: of the JSON file; empty writes none.
    """

    def __init__(self, plan: Any, path: str = ""):
        self.plan, self.path, self.start = plan, path, time.perf_counter()
        self.longest = dict(GUESS)
        options = dataclasses.asdict(plan)
        self.data: dict[str, Any] = {"device": device(), "versions": versions()}
        self.data |= {"plan": options, "checks": {}, "matmul": {}, "rows": []}
        self.data |= {"skipped": {}, "failed": {}, "seconds": 0.0}

    def part(self, name: str, kind: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Adds `measure()` to the rows, or the reason why there is none.

        Args:
            name: of the measurement.
            kind: key of `GUESS`: how long it may take.
            measure: to the numbers of one row; none adds no row.
        """
        began = time.perf_counter()
        left = self.plan.budget - (began - self.start)
        if self.longest[kind] > left:
            why = f"{left:.0f} s left, {self.longest[kind]:.0f} s may be needed"
            self.data["skipped"][name] = why
        else:
            self._measured(name, measure)
            took = time.perf_counter() - began
            known = self.longest[kind] != GUESS[kind]
            self.longest[kind] = max(took, self.longest[kind] if known else 0.0)
        self.save()

    def _measured(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            row = measure()
            if row:
                self.data["rows"].append({"name": name} | row)
        except ImportError as error:
            self.data["skipped"][name] = f"not installed: {error}"
        # The rest is worth having whatever goes wrong here, out of memory above all.
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self.data["failed"][name] = text[:300]
        gc.collect()

    def rate(self, seconds: float, flops: float) -> dict[str, float]:
        """Milliseconds, TFLOP/s, and their share of the measured ceiling."""
        numbers = {"ms": 1000 * seconds, "tflops": flops / seconds / 1e12}
        ceiling = self.data["matmul"].get("best_tflops")
        return numbers | ({"share": numbers["tflops"] / ceiling} if ceiling else {})

    def save(self) -> None:
        """Writes the file, and says how far it is."""
        self.data["seconds"] = round(time.perf_counter() - self.start, 1)
        if self.path:
            text = json.dumps(self.data, indent=2) + "\n"
            Path(self.path).write_text(text, encoding="utf-8")


def device() -> dict[str, Any]:
    """The device that JAX computes on, and the machine around it."""
    one = jax.devices()[0]
    memory = (one.memory_stats() or {}).get("bytes_limit")
    about = {"kind": one.device_kind, "platform": one.platform, "memory": memory}
    return about | {"count": len(jax.devices())} | timing.machine()


def versions() -> dict[str, str]:
    """Of the packages that are compared."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return {name: version(name) for name in PACKAGES}


def table(data: dict[str, Any]) -> str:
    """The record as Markdown."""
    about, made = data["device"], data["versions"]
    ceiling = data["matmul"].get("best_tflops")
    known = [f"{name} {version}" for name, version in made.items()]
    head = [f"{about['kind']}; {', '.join(known)}.", ""]
    if ceiling:
        head = [f"Largest rate of bfloat16 products: {ceiling:.0f} TFLOP/s.", *head]
    rows = [_line(row) for row in data["rows"]]
    names = ["what", "by", "batch", "ms per step", "TFLOP/s", "of the ceiling"]
    parts = [*head, timing.table(names, rows), ""]
    for name, check in data["checks"].items():
        verdict = "holds" if check["holds"] else "FAILS"
        error = f"error {check['error']:.2g}, at most {check['limit']:.2g}"
        parts.append(f"* {name}: {error}: {verdict}")
    for kind in ("skipped", "failed"):
        parts += [f"* {kind}: {name} ({why})" for name, why in data[kind].items()]
    return "\n".join(parts)


def _line(row: dict[str, Any]) -> list[str]:
    what = f"{row['task']}, {row['chain']}"
    what += f", remat {row['remat']}" if row.get("remat", "none") != "none" else ""
    what += words(row.get("changes", {}))
    share = f"{100 * row['share']:.0f} %" if "share" in row else ""
    return [
        *(what, row["by"], str(row["batch"])),
        *(f"{row['ms']:.2f}", f"{row['tflops']:.3g}", share),
    ]


def words(changes: dict[str, Any]) -> str:
    """Fields of a network that were changed, for a name."""
    return "".join(f", {name}={value}" for name, value in changes.items())
