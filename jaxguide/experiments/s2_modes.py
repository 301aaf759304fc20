"""S2-Guidance on Gaussian modes at -4 and 4, on a line and in the plane.

Every mode is a class. A small network is trained shortly, as a weak model for less than
that; CFG, autoguidance, naive S2 (several choices of dropped blocks averaged) and S2
(one choice) are compared with the truth, class by class. The same on the exact mixture,
where a dropped block widens every mode by a known variance.

Source: Chen et al. 2025, arXiv:2508.12880, Fig. 3, 9 and 10, App. B.1. Widths of the
    modes, scales and networks are not published; those here are 1, 3 and a small MLP.
    The weight 0.25 beside CFG is the paper's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxguide import guidance
from jaxguide.evaluate.toy import energy_distance, sliced_wasserstein
from jaxguide.experiments import figures, points
from jaxguide.experiments.fitting import Recipe, fit
from jaxguide.experiments.network import PointNet
from jaxguide.experiments.report import Report

SCALE, WEIGHT, MASKS, STEPS = 3.0, 0.25, 4, 50
STRONG = 4 * WEIGHT
SHAPES = {1: "1-D", 2: "2-D"}


def arms() -> dict[str, tuple[Any, ...]]:
    """The transforms of every arm of Fig. 3 and 4."""
    cfg = guidance.cfg(SCALE)
    return {
        "conditional": (),
        "CFG": (cfg,),
        "autoguidance": (guidance.autoguidance(SCALE),),
        "CFG + naive S2": (cfg, guidance.s2(WEIGHT, num_masks=MASKS)),
        "CFG + S2": (cfg, guidance.s2(WEIGHT)),
    }


def methods() -> dict[str, tuple[Any, ...]]:
    """The same, and S2 at a weight at which it is seen beside CFG."""
    strong = (guidance.cfg(SCALE), guidance.s2(STRONG))
    return {**arms(), "CFG + S2, weight 1": strong}


def run(report: Report) -> None:
    """Fills the report."""
    setting, shown = report.setting, {}
    for size, shape in SHAPES.items():
        mixture = points.corners(size)
        networks = {
            "trained": trained(report, mixture, size),
            "exact": exact(mixture),
        }
        count = setting.pick(2000, 40)
        noise = points.start(count, size, setting.seed + 1)
        for source, (main, weak) in networks.items():
            rows, sets = {}, {}
            for name, transforms in methods().items():
                sets[name] = _sample(mixture, main, weak, noise, transforms, 0)
                rows[name] = measures(mixture, sets[name], setting.seed)
            judge(report, f"{shape}, {source} network", rows)
            report.numbers[f"{shape}, {source}"] = rows
            shown[size, source] = sets
        main, weak = networks["trained"]
        compare(report, shape, mixture, main, setting.pick((0, 1, 2), (0,)), count)
    draw_line(report, shown[1, "trained"], shown[1, "exact"])
    draw_plane(report, shown[2, "trained"])


def trained(report: Report, mixture, size: int) -> tuple[Any, Any]:
    """The network, and a weak one: less of everything."""
    setting = report.setting
    data = points.draw(mixture, 20_000, setting.seed)
    classes = mixture.num_classes
    main = PointNet(size, classes, width=32, depth=8)
    weak = PointNet(size, classes, width=16, depth=2)
    params = fit(main, *data, Recipe(setting.pick(2000, 10)), seed=setting.seed)
    poor = fit(weak, *data, Recipe(setting.pick(400, 10)), seed=setting.seed + 1)
    return main.network(params.params), weak.network(poor.params)


def exact(mixture) -> tuple[Any, Any]:
    """The mixture itself, and one with modes half as wide again."""
    wide = points.corners(mixture.means.shape[1], std=1.5)
    return mixture.network(), wide.network()


def _sample(mixture, main, weak, noise, transforms, seed: int) -> np.ndarray:
    """Samples, all classes in turn."""
    return points.sample(
        main,
        noise,
        np.arange(len(noise)) % mixture.num_classes,
        null=mixture.num_classes,
        steps=STEPS,
        transforms=transforms,
        networks={"weak": weak} if weak is not None else None,
        seed=seed,
    )


def measures(mixture, made: np.ndarray, seed: int) -> dict[str, float]:
    """How far modes are moved and how wide they are, in their standard deviation.

    `shift` is the mean over classes of the distance of the samples' mean from the
    mode, `width` that of their standard deviation along an axis, over the truth.
    """
    real, label = points.draw(mixture, len(made), seed + 5)
    means, std = np.asarray(mixture.means), float(mixture.stds[0])
    own = [made[label == c] for c in range(mixture.num_classes)]
    away = [np.linalg.norm(o.mean(axis=0) - m) for o, m in zip(own, means, strict=True)]
    distance = [
        energy_distance(o, real[label == c]) for c, o in enumerate(own) if len(o) > 1
    ]
    return {
        "shift": float(np.mean(away) / std),
        "width": float(np.mean([o.std(axis=0).mean() for o in own]) / std),
        "energy": float(np.mean(distance)),
        "outliers": points.outliers(mixture, made, label),
    }


def judge(report: Report, where: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """The claims of Fig. 3 for one shape and one network."""

    def line(what: str) -> str:
        return ", ".join(f"{name} {row[what]:.2f}" for name, row in rows.items())

    shift = {name: row["shift"] for name, row in rows.items()}
    width = {name: abs(row["width"] - 1) for name, row in rows.items()}
    energy = {name: row["energy"] for name, row in rows.items()}
    report.claim(
        f"distance of the modes from the truth, in their std: {where}",
        "CFG shifts the modes (Fig. 3a, red boxes)",
        line("shift"),
        {
            "CFG's above 0.1": shift["CFG"] > 0.1,
            "CFG's above the conditional one's": shift["CFG"] > shift["conditional"],
        },
    )
    report.claim(
        f"the same, S2 beside CFG: {where}",
        "S2 and naive S2 mitigate the drift and match location and shape (Fig. 3d, e)",
        f"shift {shift['CFG + S2']:.2f} beside {shift['CFG']:.2f}; width "
        f"{rows['CFG + S2']['width']:.2f} beside {rows['CFG']['width']:.2f}",
        {
            f"{name}: {what} nearer to the truth than CFG": values[name] < values["CFG"]
            for name in ("CFG + naive S2", "CFG + S2")
            for what, values in (("location", shift), ("width", width))
        },
    )
    report.claim(
        f"energy distance to the truth, mean over classes: {where}",
        "CFG is suboptimal, autoguidance better but limited, S2 closest (Fig. 3)",
        ", ".join(f"{name} {row['energy']:.4f}" for name, row in rows.items()),
        {
            "autoguidance below CFG": energy["autoguidance"] < energy["CFG"],
            "S2 below CFG": energy["CFG + S2"] < energy["CFG"],
            "S2 below autoguidance": energy["CFG + S2"] < energy["autoguidance"],
        },
    )


def compare(report: Report, shape: str, mixture, network, seeds, count: int) -> None:
    """Fig. 10: naive S2 and S2 by seed, beside what two seeds of one method differ."""
    naive, single = (methods()[f"CFG + {name}"] for name in ("naive S2", "S2"))
    size = mixture.means.shape[1]
    noises = {seed: points.start(count, size, 100 + seed) for seed in seeds}
    sets = {
        (name, seed): _sample(mixture, network, None, noises[seed], transforms, seed)
        for name, transforms in (("naive", naive), ("single", single))
        for seed in seeds
    }
    apart = [
        sliced_wasserstein(sets["naive", s], sets["single", s], projections=64)
        for s in seeds
    ]
    pairs = itertools.combinations(seeds, 2)
    floor = [
        sliced_wasserstein(sets["naive", a], sets["naive", b], projections=64)
        for a, b in pairs
    ] or [float("nan")]
    moved = [
        float(np.linalg.norm(sets["naive", s] - sets["single", s], axis=1).mean())
        for s in seeds
    ]
    report.claim(
        f"distance of naive ({MASKS} choices) from single-choice S2, {len(seeds)} "
        f"seeds: {shape}, trained network",
        "virtually identical, at a fraction of the cost (Fig. 10, App. B.1.2)",
        f"{', '.join(f'{v:.4f}' for v in apart)}; naive with other noise: "
        f"{', '.join(f'{v:.4f}' for v in floor)}; a sample moves by "
        f"{np.mean(moved):.4f} on average",
        {
            "at every seed below the least distance of two seeds of naive S2": max(
                apart
            )
            < min(floor)
        },
    )
    report.numbers[f"{shape}, naive or single"] = {
        "distance": apart,
        "floor": floor,
        "moved": moved,
    }


def draw_line(report: Report, *sources: Mapping[str, np.ndarray]) -> None:
    """Densities on a line: one column per method, a row per network."""
    mixture = points.corners(1)
    line = np.linspace(-9, 9, 601)
    truth = sum(points.density(mixture, line, 0.0, label) for label in (0, 1)) / 2
    columns = len(sources[0])
    figure, axes = figures.panels(columns, 2, width=2.5, height=2.3, sharey="row")
    names = ("trained", "exact")
    for row, (sets, source) in enumerate(zip(sources, names, strict=True)):
        for panel, made in zip(axes[row], sets.values(), strict=True):
            bins = np.linspace(-9, 9, 73)
            figures.histogram(panel, made, bins, color=figures.BLUE, label="samples")
            panel.plot(line, truth, color=figures.INK, lw=1.2, label="truth")
            for mode in (-4, 4):
                panel.axvline(mode, color=figures.RED, lw=0.8, ls=":")
            panel.set(xlim=(-9, 9))
        axes[row, 0].set(ylabel=f"density, {source} network")
    for panel, name in zip(axes[0], sources[0], strict=True):
        panel.set(title=name)
        panel.title.set_fontsize("medium")
    axes[0, 0].legend(fontsize="x-small", loc="upper center")
    report.save(figure, "line")


def draw_plane(report: Report, sets: Mapping[str, np.ndarray]) -> None:
    """Samples in the plane by class, with circles of two deviations of the truth."""
    from matplotlib.patches import Circle

    mixture = points.corners(2)
    figure, (row,) = figures.panels(len(sets), width=2.3, height=2.6)
    label = np.arange(len(next(iter(sets.values())))) % mixture.num_classes
    for panel, (name, made) in zip(row, sets.items(), strict=True):
        for c, colour in zip(range(mixture.num_classes), figures.CYCLE, strict=False):
            figures.scatter(panel, made[label == c], 9.5, color=colour)
        for mean in np.asarray(mixture.means):
            panel.add_patch(Circle(tuple(mean), 2.0, fill=False, color=figures.INK))
        panel.set(title=name)
        panel.title.set_fontsize("medium")
    report.save(figure, "plane")
