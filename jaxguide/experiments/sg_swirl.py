"""Self-Guidance on a double swirl in the plane: outliers and coverage by weight.

Source: Li et al. 2024, arXiv:2412.05827, Fig. 6 and Sec. IV. The curve, its width, the
    shift and the steps are not published; those here are this module's own.
"""

from __future__ import annotations

import numpy as np

from jaxguide import guidance
from jaxguide.evaluate.toy import sliced_wasserstein
from jaxguide.experiments import figures, points
from jaxguide.experiments.fitting import Recipe, fit
from jaxguide.experiments.network import PointNet
from jaxguide.experiments.report import Report

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
SHOWN = (0.0, 1.0, 3.0, 7.0)
STEPS = 20
METHODS = {
    "SG, scores, shift 0.05": lambda w: guidance.sg(w, shift=0.05, space="score"),
    "SG, raw outputs, shift 0.01": lambda w: guidance.sg(w, shift=0.01),
    "SG-prev, t < 0.5": guidance.sg_prev,
}
MEASURES = {
    "outliers": "outliers, %",
    "coverage": "pieces reached, %",
    "distance": "sliced Wasserstein",
}


def run(report: Report) -> None:
    """Fills the report."""
    setting = report.setting
    mixture = points.swirl(setting.pick(64, 8))
    net = PointNet(2, width=128, depth=3, waves=3)
    data = points.draw(mixture, setting.pick(50_000, 500), setting.seed)
    recipe = Recipe(setting.pick(6000, 20), batch=256, label_drop=0.0)
    fitted = fit(net, *data, recipe, seed=setting.seed)
    networks = {"exact": mixture.network(), "trained": net.network(fitted.params)}
    noise = points.start(setting.pick(2000, 100), 2, setting.seed + 1)
    real = points.draw(mixture, len(noise), setting.seed + 2)[0]
    other = points.draw(mixture, len(noise), setting.seed + 3)[0]
    results, shown = {}, {}
    for source, network in networks.items():
        for name, method in METHODS.items():
            sets = points.sweep(network, noise, [*map(method, WEIGHTS)], steps=STEPS)
            results[source, name] = [measures(mixture, one, real) for one in sets]
            shown[source, name] = dict(zip(WEIGHTS, sets, strict=True))
    floor = measures(mixture, other, real)
    report.numbers["real"] = floor
    report.numbers["swirl"] = {
        f"{source}, {name}": dict(zip(WEIGHTS, rows, strict=True))
        for (source, name), rows in results.items()
    }
    for (source, name), rows in results.items():
        judge(report, f"{name} ({source})", rows)
    draw(report, real, shown["trained", "SG, scores, shift 0.05"])
    _curves(report, results, floor)


def measures(mixture, made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Outliers, pieces reached, and the distance to real points."""
    return {
        "outliers": points.outliers(mixture, made),
        "coverage": points.coverage(mixture, made),
        "distance": sliced_wasserstein(made, real, projections=64),
    }


def judge(report: Report, name: str, rows: list[dict[str, float]]) -> None:
    """The two claims of Fig. 6 for one method and one network."""
    at = dict(zip(WEIGHTS, rows, strict=True))
    outliers = {w: row["outliers"] for w, row in at.items()}
    moderate = min((1.0, 2.0, 3.0), key=outliers.__getitem__)
    report.claim(
        f"outliers at weights {', '.join(f'{w:g}' for w in SHOWN)}: {name}",
        "outliers off the swirl are removed, more with a larger weight (Fig. 6)",
        ", ".join(f"{outliers[w]:.1%}" for w in SHOWN),
        {
            "fewer at the best of 1, 2, 3 than at 0": outliers[moderate] < outliers[0],
            "fewer at 3 than at 1": outliers[3.0] < outliers[1.0],
        },
    )
    distance = {w: row["distance"] for w, row in at.items()}
    reached = {w: row["coverage"] for w, row in at.items()}
    report.claim(
        f"weight 7 beside 0: {name}",
        "a weight of 7 oversuppresses: samples no longer cover the swirl (Fig. 6)",
        f"distance {distance[7.0]:.3f} beside {distance[0.0]:.3f}, pieces reached "
        f"{reached[7.0]:.0%} beside {reached[0.0]:.0%}",
        {
            "distance to real points at 7 above that at 0": distance[7.0]
            > distance[0.0],
            "fewer pieces reached at 7 than at 0": reached[7.0] < reached[0.0],
        },
    )


def draw(report: Report, real: np.ndarray, shown: dict[float, np.ndarray]) -> None:
    """Samples of the trained network, one panel for each weight."""
    sets = {"data": real} | {f"SG, weight {w:g}": shown[w] for w in SHOWN}
    figure, (row,) = figures.panels(len(sets), width=2.3, height=2.6)
    for (title, made), panel in zip(sets.items(), row, strict=True):
        colour = figures.INK if title == "data" else figures.BLUE
        figures.scatter(panel, made, 2.6, color=colour)
        panel.set(title=title)
    report.save(figure, "samples")


def _curves(report: Report, results, floor) -> None:
    figure, axes = figures.panels(3, 2, width=3.4, height=2.6, sharex=True)
    for row, source in enumerate(("exact", "trained")):
        for panel, (what, title) in zip(axes[row], MEASURES.items(), strict=True):
            factor = 1 if what == "distance" else 100
            lines = {
                name: [factor * one[what] for one in results[source, name]]
                for name in METHODS
            }
            figures.curves(panel, WEIGHTS, lines)
            panel.axhline(factor * floor[what], color=figures.INK, ls=":", lw=1)
            panel.set(ylabel=title)
        axes[row, 0].set_yscale("symlog", linthresh=0.1)
        axes[row, 0].set(ylim=(-0.03, None))
        axes[row, 1].set(title=f"{source} network, {STEPS} Euler steps")
    for panel in axes[1]:
        panel.set(xlabel="weight")
    figures.legend_below(figure, axes[0, 0])
    report.save(figure, "curves")
