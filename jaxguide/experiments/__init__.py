"""Experiments of the papers, small enough for a laptop: paper's claim beside measured.

    python -m jaxguide.experiments               lists them
    python -m jaxguide.experiments sg_modes      runs one

The top layer: it may import every room, and nothing imports it.
"""

from __future__ import annotations

import importlib

from jaxguide.experiments.report import Report, Setting
from jaxguide.runtime.calls import lookup

# Name of a module here, and what it shows.
EXPERIMENTS = {
    "sg_modes": "Self-Guidance Fig. 2 and 5: two modes on a line, densities and SG",
    "sg_swirl": "Self-Guidance Fig. 6: a double swirl, outliers against the weight",
    "sg_solvers": "Self-Guidance Eq. 10: SG-prev beside AB2 and Heun at equal NFE",
    "sg_spaces": "Self-Guidance Eq. 9 and its code: scores or raw network outputs",
    "s2_modes": "S2-Guidance Fig. 3 and 10: modes under CFG, autoguidance and S2",
    "s2_cost": "S2-Guidance Table 5: cost beside CFG, counted and measured",
    "s2_cifar": "S2-Guidance Fig. 4: CIFAR-10 horses and automobiles (needs --data)",
    "mg_grid": "Model-Guidance Fig. 2: two classes on a grid, outliers and coverage",
    "mg_fixed_points": "Model-Guidance Eq. 12 and 20: the scale that is learnt",
    "tilted": "CFG is not p(x|c)^w p(x)^(1-w): both exactly, side by side",
}


def run(name: str, setting: Setting) -> Report:
    """Runs one experiment and writes its figures, its numbers and its table.

    Args:
        name: one of `EXPERIMENTS`.
        setting: where to write, seed and size.

    Raises:
        InputError: if the name is unknown, or the experiment lacks what it needs.
    """
    lookup("experiments", name, EXPERIMENTS)
    module = importlib.import_module(f"{__name__}.{name}")
    report = Report(name, EXPERIMENTS[name], setting)
    module.run(report)
    report.write()
    return report


def listing() -> str:
    """All experiments, one line each."""
    width = max(map(len, EXPERIMENTS))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in EXPERIMENTS.items())
