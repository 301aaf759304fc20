"""SG-prev beside solvers at equal cost: is it guidance, or a better integrator?

With uniform Euler steps, SG-prev of weight 1/2 at all times is the Adams-Bashforth
solver of order 2. Errors are against the exact solution of the same differential
equation, from the same noise; the network is exact, so that nothing else is wrong.

Source: Li et al. 2024, arXiv:2412.05827, Eq. 10, Sec. IV and Fig. 1; that it is of the
    form of a solver is this module's own remark.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, samplers
from jaxguide.experiments import figures, points
from jaxguide.experiments.report import Report
from jaxguide.samplers.adaptive import integrate

BUDGETS = (8, 16, 32, 64)  # network evaluations
ALSO: dict[str, str] = {"SG-prev, weight 0.5, all t": "SG-prev, weight 0.5, all t: AB2"}


SWEPT = {  # one program; weight 0 is Euler
    "Euler": guidance.sg_prev(0.0),
    "SG-prev, weight 0.5, all t": guidance.sg_prev(0.5, t_hi=1.0),
    "SG-prev, weight 0.5, t < 0.5": guidance.sg_prev(0.5),
    "SG-prev, weight 3, t < 0.5": guidance.sg_prev(3.0),
}


def samples(network, noise, budget: int) -> dict[str, np.ndarray]:
    """What every way makes with `budget` evaluations."""
    sets = points.sweep(network, noise, list(SWEPT.values()), steps=budget)
    made = dict(zip(SWEPT, sets, strict=True))
    ab2 = (guidance.ab2(),)
    made["AB2"] = points.sample(network, noise, 0, steps=budget, transforms=ab2)
    # Two evaluations per step, one in the last: one evaluation less.
    heun = samplers.heun()
    made["Heun"] = points.sample(network, noise, 0, steps=budget // 2, sampler=heun)
    return made


def run(report: Report) -> None:
    """Fills the report."""
    setting = report.setting
    count = setting.pick(1000, 20)
    budgets = setting.pick(BUDGETS, BUDGETS[:2])
    cases = {
        "two modes on a line": (points.two_modes(), 1),
        "double swirl": (points.swirl(setting.pick(64, 4)), 2),
    }
    tables = {}
    for title, (mixture, size) in cases.items():
        noise = points.start(count, size, setting.seed)
        label = jnp.zeros(count, jnp.int32)
        exact = integrate(
            mixture.network(), noise, label, per_sample=False, rtol=1e-5, atol=1e-5
        ).x
        tables[title] = table(mixture, noise, np.asarray(exact), budgets)
        judge(report, title, tables[title], budgets)
    report.numbers["solvers"] = tables
    draw(report, tables, budgets)


def table(mixture, noise, exact: np.ndarray, budgets) -> dict[str, dict]:
    """Root mean squared error and outliers of every method, by budget."""
    rows: dict[str, dict] = {}
    for budget in budgets:
        for name, made in samples(mixture.network(), noise, budget).items():
            error = np.sqrt(np.square(made - exact).sum(axis=1).mean())
            row = rows.setdefault(name, {"error": {}, "outliers": {}})
            row["error"][budget] = float(error)
            row["outliers"][budget] = points.outliers(mixture, made)
    rows["exact"] = {"outliers": points.outliers(mixture, exact)}
    return rows


def judge(report: Report, title: str, rows: dict[str, dict], budgets) -> None:
    """Three claims for one distribution."""
    error = {name: row["error"] for name, row in rows.items() if "error" in row}
    same = max(
        abs(error["AB2"][b] - error["SG-prev, weight 0.5, all t"][b]) for b in budgets
    )
    report.claim(
        f"error of SG-prev (weight 0.5, all t) less that of AB2: {title}",
        "none: that the two are one is our reading of Eq. 10",
        f"at most {same:.1e}",
        {"below 1e-4": same < 1e-4},
    )

    def line(name: str) -> str:
        return ", ".join(f"{error[name][b]:.3f}" for b in budgets)

    named = ("Euler", "AB2", "Heun", "SG-prev, weight 3, t < 0.5")
    report.claim(
        f"error against the exact solution, NFE {', '.join(map(str, budgets))}: "
        f"{title}",
        "SG-prev improves on the plain sampler at no cost (Eq. 10, Fig. 1, Table I)",
        "; ".join(f"{name}: {line(name)}" for name in named),
        {
            f"SG-prev, weight 3, has a smaller error than {other} at every NFE": all(
                error["SG-prev, weight 3, t < 0.5"][b] < error[other][b]
                for b in budgets
            )
            for other in named[:3]
        },
    )
    outliers = {name: row["outliers"] for name, row in rows.items() if name != "exact"}
    report.claim(
        f"outliers, NFE {', '.join(map(str, budgets))}: {title}",
        "SG-prev suppresses artifacts (Sec. IV)",
        "; ".join(
            f"{name}: {', '.join(f'{outliers[name][b]:.1%}' for b in budgets)}"
            for name in named
        )
        + f"; exact solution: {rows['exact']['outliers']:.1%}",
        {
            f"SG-prev, weight 3, leaves no more than {other} at every NFE": all(
                outliers["SG-prev, weight 3, t < 0.5"][b] <= outliers[other][b]
                for b in budgets
            )
            for other in named[:3]
        },
    )


def draw(report: Report, tables: dict, budgets) -> None:
    """Error against evaluations."""
    figure, (row,) = figures.panels(len(tables), width=4.2, height=3.5)
    for panel, (title, rows) in zip(row, tables.items(), strict=True):
        lines = {
            ALSO.get(name) or name: [one["error"][b] for b in budgets]
            for name, one in rows.items()
            if "error" in one and name != "AB2"  # it would hide the first of these
        }
        figures.curves(panel, budgets, lines)
        panel.set(xscale="log", yscale="log", title=title)
        panel.set(xlabel="network evaluations", ylabel="error (root mean square)")
        panel.set_xticks(budgets, [str(b) for b in budgets])
        panel.minorticks_off()
    figures.legend_below(figure, row[0])
    report.save(figure, "errors")
