"""Self-Guidance on two modes at -1 and 1: densities, SG, SG-prev, outliers.

Source: Li et al. 2024, arXiv:2412.05827, Fig. 2 and 5 and Sec. IV. The standard
    deviation of a mode, the steps and the network are not published; those here are
    0.1, stated numbers, and a small MLP.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxguide import guidance
from jaxguide.experiments import figures, points
from jaxguide.experiments.fitting import Recipe, fit
from jaxguide.experiments.network import PointNet
from jaxguide.experiments.report import Report

AT, SHIFT, STD = 0.38, 0.2, 0.1  # noise time and shift of the paper's Fig. 2
LEVELS, STEP = (0.75, 0.625, 0.5, 0.375, 0.25), 0.125  # its Fig. 5, an even ladder
SHOWN = (0.0, 1.0, 2.0, 4.0)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0)
STEPS = 20  # of Euler, where outliers are counted
LINE = np.linspace(-3.0, 3.0, 1201)
MIDDLE = len(LINE) // 2
METHODS = {
    "SG, scores, shift 0.2": lambda w: guidance.sg(w, shift=SHIFT, space="score"),
    "SG, raw outputs, shift 0.01": lambda w: guidance.sg(w, shift=0.01),
    "SG-prev, t < 0.5": guidance.sg_prev,
}


def run(report: Report) -> None:
    """Fills the report."""
    setting, mixture = report.setting, points.two_modes(STD)
    net = PointNet(1, width=64, depth=3)
    data = points.draw(mixture, setting.pick(50_000, 500), setting.seed)
    recipe = Recipe(setting.pick(4000, 20), label_drop=0.0)
    fitted = fit(net, *data, recipe, seed=setting.seed)
    networks = {"exact": mixture.network(), "trained": net.network(fitted.params)}
    noise = points.start(setting.pick(5000, 200), 1, setting.seed + 1)
    densities(report, networks, noise)
    levels(report, networks, noise)
    outliers(report, networks, noise)


def guided(t: float, weight: float, shift: float = SHIFT) -> np.ndarray:
    """The density of Eq. 1: p_t (p_t / p_{t + shift})^weight, normalised, on `LINE`."""
    mixture = points.two_modes(STD)
    here, later = (points.density(mixture, LINE, s) for s in (t, t + shift))
    return points.normalised(LINE, here * (here / later) ** weight)


def densities(report: Report, networks: dict, noise: jax.Array) -> None:
    """Fig. 2: the two noise levels, and what the ratio makes of them."""
    mixture = points.two_modes(STD)
    here, later = (points.density(mixture, LINE, t) for t in (AT, AT + SHIFT))
    made = {w: guided(AT, w) for w in SHOWN}
    reached = {
        name: points.sample(network, noise, 0, stop=AT)
        for name, network in networks.items()
    }
    ratio = here[MIDDLE] / later[MIDDLE]
    report.claim(
        "density at 0, t = 0.38 over t = 0.58",
        "declines from the noisier to the cleaner level (Fig. 2a)",
        f"{here[MIDDLE]:.3f} / {later[MIDDLE]:.3f} = {ratio:.2f}",
        {"ratio < 1": ratio < 1},
    )
    middle, peak = ([f(d) for d in made.values()] for f in (_middle, np.max))
    report.claim(
        f"density at 0 and at the peak for weights {', '.join(map(_g, SHOWN))}",
        "a larger weight suppresses the origin more, modes are boosted (Fig. 2b)",
        f"at 0: {', '.join(f'{v:.3f}' for v in middle)}; "
        f"peak: {', '.join(f'{v:.2f}' for v in peak)}",
        {
            "the density at 0 falls with every weight": np.all(np.diff(middle) < 0),
            "the peak rises with every weight": np.all(np.diff(peak) > 0),
        },
    )
    _follows(report, networks["exact"], noise, made[1.0], here)
    report.numbers["fig2"] = {
        "at_0": dict(zip(SHOWN, middle, strict=True)),
        "trained_w1": points.wasserstein(reached["trained"], LINE, here),
        "exact_w1": points.wasserstein(reached["exact"], LINE, here),
    }
    _draw_densities(report, here, later, made, reached["trained"])


def _follows(report: Report, network, noise, wanted, plain) -> None:
    """Whether sampling with Eq. 9 follows the density of Eq. 1."""
    transform = guidance.sg(1.0, shift=SHIFT, space="score")
    samples = points.sample(
        network, noise, 0, steps=200, stop=AT, transforms=(transform,)
    )
    near, far = (points.wasserstein(samples, LINE, d) for d in (wanted, plain))
    floor = points.wasserstein(
        points.sample(network, noise, 0, steps=200, stop=AT), LINE, plain
    )
    report.claim(
        "Wasserstein-1 at t = 0.38 of samples guided by Eq. 9, weight 1",
        "guided sampling follows p_t (p_t / p_{t+d})^w (Eq. 1 and 6)",
        f"{near:.3f} from that density, {far:.3f} from the unguided one "
        f"(unguided samples from theirs: {floor:.3f})",
        {
            "nearer to Eq. 1 than to the unguided density": near < far,
            "within three times what unguided samples reach": near < 3 * floor,
        },
    )
    report.numbers["eq1"] = {"guided": near, "unguided": far, "floor": floor}


def levels(report: Report, networks: dict, noise: jax.Array) -> None:
    """Fig. 5: this level, a noisier one, and that of the step before."""
    mixture = points.two_modes(STD)
    table = {}
    for t in LEVELS:
        shown = [points.density(mixture, LINE, s) for s in (t, t + SHIFT, t + STEP)]
        near = points.density(mixture, LINE, t + 0.01)
        table[t] = [float(d[MIDDLE]) for d in (*shown, near)]
    change = {t: abs(np.log(row[0] / row[2])) for t, row in table.items()}
    report.claim(
        "|log ratio| of the density at 0 to the step before (0.125), by noise time",
        "small changes at high noise, large ones at low noise (Fig. 5, Sec. IV)",
        ", ".join(f"t = {t:g}: {value:.2f}" for t, value in change.items()),
        {
            "larger at t = 0.25 than at t = 0.75": change[0.25] > change[0.75],
            "rises at every level": np.all(np.diff(list(change.values())) > 0),
        },
    )
    low = [table[t] for t in LEVELS if t < 0.5]
    report.claim(
        "density at 0 of the step before (t + 0.125) over the noisier level's, t < 0.5",
        "near 0 the step before is above the slightly noisier level: stronger "
        "suppression by SG-prev (Fig. 5, Sec. IV)",
        f"shift 0.2: {', '.join(f'{r[2] / r[1]:.2f}' for r in low)}; "
        f"shift 0.01: {', '.join(f'{r[2] / r[3]:.2f}' for r in low)}",
        {
            "> 1 for the shift 0.2 of Fig. 2": all(r[2] > r[1] for r in low),
            "> 1 for the shift 0.01 of the code": all(r[2] > r[3] for r in low),
        },
    )
    report.numbers["fig5"] = {
        "columns": ["t", "t + 0.2", "t + 0.125", "t + 0.01"],
        "density_at_0": table,
    }
    _draw_levels(report, networks["trained"], noise)


def outliers(report: Report, networks: dict, noise: jax.Array) -> None:
    """Outlier mass and width of the modes against the weight."""
    mixture, results = points.two_modes(STD), {}
    for source, network in networks.items():
        for name, method in METHODS.items():
            sets = points.sweep(network, noise, [*map(method, WEIGHTS)], steps=STEPS)
            results[source, name] = {
                "outliers": [points.outliers(mixture, one) for one in sets],
                "width": [float(np.abs(one).std() / STD) for one in sets],
            }
    for source in networks:
        rows = {name: results[source, name]["outliers"] for name in METHODS}
        report.claim(
            f"outliers against weight 0, 1, 7 ({source} network, {STEPS} Euler steps)",
            "artifacts between the modes are suppressed more with a larger weight "
            "(Fig. 2b, 5)",
            "; ".join(f"{name}: {_shares(row)}" for name, row in rows.items()),
            {
                f"{name}: fewer at 1 than at 0, and at 7 than at 1": row[0]
                > row[WEIGHTS.index(1)]
                > row[-1]
                for name, row in rows.items()
                if row[0] > 0  # else there is nothing to remove
            },
        )
    report.numbers["outliers"] = {
        f"{source}, {name}": {"weights": WEIGHTS, **v}
        for (source, name), v in results.items()
    }
    _draw_outliers(report, results)


def _middle(values: np.ndarray) -> float:
    return float(values[MIDDLE])


def _g(value: float) -> str:
    return f"{value:g}"


def _shares(row: list[float]) -> str:
    return ", ".join(f"{row[WEIGHTS.index(w)]:.2%}" for w in (0, 1, 7))


BINS = np.linspace(-2.5, 2.5, 81)


def _draw_densities(report: Report, here, later, made, reached) -> None:
    figure, ((left, middle, right),) = figures.panels(3, width=3.6)
    figures.histogram(left, reached, BINS, label="trained network, samples")
    left.plot(LINE, later, color=figures.GREEN, ls="--", label="$p_{t+0.2}$")
    left.plot(LINE, here, color=figures.BLUE, label="$p_t$")
    left.plot(LINE, made[1.0], color=figures.RED, ls="-.", label="SG, weight 1")
    left.set(title="t = 0.38")
    for i, weight in enumerate(SHOWN):
        look = {"color": figures.CYCLE[i], "ls": ("-", "-.", "--", ":")[i]}
        middle.plot(LINE, made[weight], label=f"weight {weight:g}", **look)
    middle.set(title="SG at t = 0.38")
    truth = points.density(points.two_modes(STD), LINE, 0.0)
    right.plot(LINE, truth, color=figures.INK, label="$p_0$")
    right.set(title="data")
    for panel in (left, middle, right):
        panel.set(xlabel="x", xlim=(-2.5, 2.5), ylim=(0, None))
        panel.legend(fontsize="x-small", loc="upper right")
    left.set(ylabel="density", ylim=(0, 0.95))
    middle.set(ylim=(0, 1.35 * max(d.max() for d in made.values())))
    report.save(figure, "densities")


def _draw_levels(report: Report, network, noise) -> None:
    mixture = points.two_modes(STD)
    figure, axes = figures.panels(3, 2, width=3.6, height=2.6)
    for t, panel in zip(LEVELS, axes.flat, strict=False):
        samples = points.sample(network, noise, 0, steps=40, stop=t)
        figures.histogram(panel, samples, BINS, label="trained, samples at t")
        for shift, colour, style, label in (
            (SHIFT, figures.GREEN, "--", "t + 0.2"),
            (STEP, figures.ORANGE, "-.", "step before, t + 0.125"),
            (0.0, figures.BLUE, "-", "t"),
        ):
            values = points.density(mixture, LINE, t + shift)
            panel.plot(LINE, values, color=colour, ls=style, label=label)
        panel.set(title=f"t = {t:g}")
    axes[1, 2].plot(LINE, points.density(mixture, LINE, 0.0), color=figures.INK)
    axes[1, 2].set(title="data")
    for panel in axes.flat:
        panel.set(xlim=(-2.5, 2.5), ylim=(0, None), xlabel="x")
    axes[0, 0].legend(fontsize="x-small", loc="upper left")
    axes[0, 0].set(ylim=(0, 0.75))
    for panel in axes[:, 0]:
        panel.set(ylabel="density")
    report.save(figure, "levels")


def _draw_outliers(report: Report, results) -> None:
    figure, axes = figures.panels(2, 2, width=4.2, height=2.8, sharex=True)
    for column, source in enumerate(("exact", "trained")):
        for row, what in enumerate(("outliers", "width")):
            panel = axes[row, column]
            factor = 100 if what == "outliers" else 1
            lines = {
                name: [factor * v for v in results[source, name][what]]
                for name in METHODS
            }
            figures.curves(panel, WEIGHTS, lines)
        axes[0, column].set_yscale("symlog", linthresh=0.1)
        axes[0, column].set(title=f"{source} network, {STEPS} Euler steps")
        axes[0, column].set(ylabel="outliers, %", ylim=(-0.03, None))
        axes[1, column].axhline(1.0, color=figures.INK, lw=1, ls=":")
        axes[1, column].set(xlabel="weight", ylabel="width of a mode / truth")
        axes[1, column].set(yscale="log")
    figures.legend_below(figure, axes[0, 0])
    report.save(figure, "outliers")
