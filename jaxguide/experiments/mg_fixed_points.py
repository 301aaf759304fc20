"""What Model-Guidance and its relatives converge to: the scale that is learnt.

Training on linear models of Gaussian classes is solved exactly, round after round
(`linear_classes`), so that the fixed point is seen and not an optimizer. Model-Guidance
of weight w learns CFG of scale 1 / (1 - w), because the network that guides is the one
that is guided.

Source: Tang et al. 2025, arXiv:2502.12154, Eq. 12, 18, 20 and 22: the paper reads the
    weight as CFG of scale 1 + w. Other losses: see `jaxguide.losses`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxguide import paths
from jaxguide.experiments import figures
from jaxguide.experiments.linear_classes import (
    CLASSES,
    LINEAR,
    Case,
    measure,
    solve,
    unguided,
)
from jaxguide.experiments.report import Report

NOISE = (("path", paths.VP()), ("kind", "noise"))
SCALES = (*LINEAR, ("scales", (1.0, 4.0)), ("guided_share", 0.5))
# At other classes the pull on one class counts N / (N - 1) times.
OTHER = CLASSES / (CLASSES - 1)


def _guided(weight: float, **changes) -> Case:
    fields: dict[str, Any] = dict(
        options=(*LINEAR, ("t_hi", 1.0)),
        weight=weight,
        scale=1 / (1 - weight),
        rounds=80,
    )
    return Case("model_guidance", **(fields | changes))


def _flow(omega: float, kappa: float) -> Case:
    fixed = ("flow_ratio", 1.0), ("power", 0.0)
    return Case(
        "mean_flow",
        (*LINEAR, ("omega", omega), ("kappa", kappa), *fixed),
        extra="duration",
        value=0.0,
        scale=omega / (1 - kappa),
        rounds=200,
    )


CASES = [
    *[_guided(weight) for weight in (0.0, 0.25, 0.45, 0.5, 0.75)],
    _guided(0.45, options=(*NOISE, ("t_hi", 1.0))),
    _guided(
        0.45,
        options=(*LINEAR, ("t_hi", 1.0), ("reference", "mean"), ("label_drop", 0.0)),
        about="classes",
    ),
    _guided(
        0.3,
        options=(*LINEAR, ("t_hi", 1.0), ("reference", "other"), ("label_drop", 0.0)),
        about="classes",
        scale=1 / (1 - 0.3 * OTHER),
    ),
    *[
        Case(
            "scale_aware_model_guidance",
            (*SCALES, ("t_hi", 1.0)),
            extra="scale",
            value=scale,
            scale=scale,
            rounds=4,
            spread=0.0,
        )
        for scale in (1.0, 1.5, 2.0, 4.0)
    ],
    *[
        Case(
            "gft",
            LINEAR,
            extra="beta",
            value=beta,
            scale=1 / beta,
            rounds=4,
            spread=0.0,
        )
        for beta in (1.0, 0.5, 0.25)
    ],
    *[
        Case(
            "cfg_distillation",
            (*LINEAR, ("scales", (1.0, 4.0))),
            extra="scale",
            value=scale,
            scale=scale,
            teacher="plain",
        )
        for scale in (1.0, 2.5, 4.0)
    ],
    *[_flow(*pair) for pair in [(1.0, 0.0), (0.6, 0.5), (0.3, 0.9)]],
]


PAPERS = {
    "scale_aware_model_guidance": "the scale that was asked for (MG Eq. 21, 22)",
    "gft": "CFG of scale 1 / beta (arXiv:2501.15420)",
    "cfg_distillation": "the scale that was asked for (arXiv:2210.03142)",
    "mean_flow": "CFG of scale omega / (1 - kappa) (arXiv:2505.13447)",
}
ROUNDS = (1, 2, 4, 8, 16, 32)


def run(report: Report) -> None:
    """Fills the report."""
    cases = report.setting.pick(CASES, CASES[:2])
    results = {case: measure(case) for case in cases}
    report.numbers["cases"] = [
        {
            "loss": case.loss,
            "setting": case.setting,
            "expected": case.scale,
            "learnt": scale,
            "error": error,
        }
        for case, (scale, error) in results.items()
    ]
    guided = {
        case.weight: scale
        for case, (scale, _) in results.items()
        if case.loss == "model_guidance" and case.options == CASES[0].options
    }
    _model_guidance(report, guided)
    for name, claim in PAPERS.items():
        _others(report, name, claim, results)
    draw(report, guided)


def _model_guidance(report: Report, guided: dict[float, float]) -> None:
    """The scale by weight, beside the paper's reading and beside the fixed point."""
    shown = ", ".join(f"w = {w:g}: {scale:.4f}" for w, scale in guided.items())
    published, ours = (
        max(abs(scale / expected(w) - 1) for w, scale in guided.items())
        for expected in (lambda w: 1 + w, lambda w: 1 / (1 - w))
    )
    report.claim(
        "scale of CFG that Model-Guidance of weight w learns",
        "1 + w: the score of p(x|c) p(c|x)^w (Eq. 12, 20)",
        shown,
        {"within 1 % of 1 + w at every w": published < 0.01},
    )
    report.claim(
        "the same beside 1 / (1 - w)",
        "none: the fixed point of Eq. 20 by algebra, the network being its own guide",
        f"at most {ours:.1e} away",
        {"within 0.1 % at every w": ours < 1e-3},
    )


def _others(report: Report, name: str, claim: str, results: dict) -> None:
    """One row for all settings of another loss."""
    rows = [
        (case.scale, scale) for case, (scale, _) in results.items() if case.loss == name
    ]
    if not rows:
        return
    far = max(abs(scale / wanted - 1) for wanted, scale in rows)
    report.claim(
        f"scale that {name} learns, settings with scale "
        + ", ".join(f"{wanted:g}" for wanted, _ in rows),
        claim,
        ", ".join(f"{scale:.4f}" for _, scale in rows),
        {"within 0.1 % of the claim at every setting": far < 1e-3},
    )


def after(weight: float, rounds: int) -> float:
    """The scale after some rounds of least squares, each taught by the one before."""
    case = CASES[0]  # without guidance; `weight` may be 1, which has no fixed point
    base = unguided(case)
    away = base[CLASSES]
    change = (solve(case, weight=weight, rounds=rounds) - away)[:CLASSES]
    plain = (base - away)[:CLASSES]
    return float((change * plain).sum() / np.square(plain).sum())


def draw(report: Report, guided: dict[float, float]) -> None:
    """The learnt scale by weight, and how rounds of training approach it."""
    figure, ((left, right),) = figures.panels(2, width=4.2, height=3.2)
    fine = np.linspace(0.0, 0.8, 81)
    left.plot(fine, 1 / (1 - fine), color=figures.BLUE, label="1 / (1 - w)")
    left.plot(fine, 1 + fine, color=figures.RED, ls="--", label="1 + w, the paper's")
    left.plot(
        *zip(*guided.items(), strict=True), "o", color=figures.INK, label="learnt"
    )
    left.set(xlabel="weight w", ylabel="scale of CFG that is learnt")
    left.legend(fontsize="small")
    left.grid(alpha=0.3)
    rounds = report.setting.pick(ROUNDS, ROUNDS[:2])
    lines = {
        f"w = {w:g}": [after(w, count) for count in rounds]
        for w in report.setting.pick((0.25, 0.45, 0.75, 1.0), (0.25,))
    }
    report.numbers["rounds"] = {"rounds": rounds, **lines}
    figures.curves(right, rounds, lines)
    right.set(xlabel="rounds of training", ylabel="scale", xscale="log", yscale="log")
    right.legend(fontsize="small")
    report.save(figure, "fixed_points")
