"""What every experiment hands over: claims beside measurements, numbers, figures.

A claim is judged by rules, which are written down beside their outcome: "yes" if all
hold, "no" if none does, "partly" otherwise. Nothing is judged by hand.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

UNJUDGED = "-"


@dataclasses.dataclass(frozen=True)
class Setting:
    """How an experiment is run.

    Args:
        folder: for the figures, the numbers and the table.
        seed: of data, training and noise.
        tiny: a run of seconds that exercises everything and shows nothing.
        data: path of the user's own images, where an experiment needs them.
        steps: of training, where an experiment lets the user choose; 0 is its own.
    """

    folder: Path
    seed: int = 0
    tiny: bool = False
    data: str = ""
    steps: int = 0

    def pick(self, full: Any, tiny: Any) -> Any:
        """One of two sizes."""
        return tiny if self.tiny else full


class Row(NamedTuple):
    """One line of the table."""

    quantity: str
    claim: str  # the paper's, with its figure or section
    measured: str
    agrees: str  # yes, no, partly, or `UNJUDGED`
    why: str  # the rules that held and those that failed


@dataclasses.dataclass
class Report:
    """The table of one experiment, filled while it runs.

    Args:
        name: of the experiment.
        title: what it shows.
        setting: how it is run.
    """

    name: str
    title: str
    setting: Setting
    rows: list[Row] = dataclasses.field(default_factory=list)
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    figures: list[Path] = dataclasses.field(default_factory=list)
    start: float = dataclasses.field(default_factory=time.perf_counter)
    seconds: float = 0.0

    def claim(
        self, quantity: str, claim: str, measured: str, rules: Mapping[str, Any]
    ) -> None:
        """Adds a line; `rules` maps each rule, in words, to whether it holds."""
        held = {rule: bool(outcome) for rule, outcome in rules.items()}
        outcomes = set(held.values())
        agrees = UNJUDGED if not held else "yes" if outcomes == {True} else "partly"
        agrees = "no" if outcomes == {False} else agrees
        why = "; ".join(
            f"{rule}: {'holds' if outcome else 'fails'}"
            for rule, outcome in held.items()
        )
        why = why or "no rule applies"
        self.rows.append(Row(quantity, claim, measured, agrees, why))

    def missing(self, quantity: str, claim: str, reason: str) -> None:
        """Adds a line for what was not measured."""
        self.rows.append(Row(quantity, claim, "not measured", UNJUDGED, reason))

    def save(self, figure: Any, name: str) -> None:
        """Writes a figure as NAME.png."""
        file = self.setting.folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=100)
        self.figures.append(file)

    def write(self) -> None:
        """Writes report.json and table.md."""
        self.seconds = time.perf_counter() - self.start
        folder = self.setting.folder
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "experiment": self.name,
            "seed": self.setting.seed,
            "tiny": self.setting.tiny,
            "seconds": round(self.seconds, 1),
            "rows": [row._asdict() for row in self.rows],
            "numbers": plain(self.numbers),
        }
        text = json.dumps(content, indent=1) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        (folder / "table.md").write_text(self.table() + "\n", encoding="utf-8")

    def table(self) -> str:
        """The lines as Markdown."""
        head = ("quantity", "paper's claim", "measured", "agrees", "by which rule")
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        lines = [head, ("---",) * len(head), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def text(self) -> str:
        """What a terminal shows."""
        size = "tiny: these numbers mean nothing, " if self.setting.tiny else ""
        foot = f"{size}seed {self.setting.seed}, {self.seconds:.0f} s"
        written = [*self.figures, self.setting.folder / "report.json"]
        return "\n".join(
            [self.title, "", self.table(), "", foot, *(f"wrote {f}" for f in written)]
        )


def plain(value: Any) -> Any:
    """Numbers as JSON takes them: arrays as lists, six significant digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | jax.Array | np.generic):
        return plain(np.asarray(value).tolist())
    return float(f"{value:.6g}") if isinstance(value, float) else value
