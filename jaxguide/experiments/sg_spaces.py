"""Self-Guidance in scores, as the paper writes it, and in raw outputs, as its code is.

For a velocity network the two corrections are different vectors: the velocity differs
from the score by a factor and by a term in x that both depend on time. This compares
them where the network is exact.

Source: Li et al. 2024, arXiv:2412.05827, Eq. 9; the authors' code subtracts what the
    network returns (maple-research-lab/Self-Guidance @843bda7).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, paths
from jaxguide.experiments import figures, points
from jaxguide.experiments.report import Report

SHIFTS = (0.01, 0.2)
TIMES = tuple(np.round(np.arange(0.05, 0.8, 0.05), 2))
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
STEPS = 50
SPACES = ("score", "native")
NAMES = {"score": "scores (Eq. 9)", "native": "raw outputs (code)"}


def run(report: Report) -> None:
    """Fills the report."""
    setting, mixture = report.setting, points.two_modes()
    count = setting.pick(5000, 100)
    noise = points.start(count, 1, setting.seed)
    alike = {
        shift: [
            alignment(mixture, t, shift, count=count, seed=setting.seed) for t in TIMES
        ]
        for shift in SHIFTS
    }
    for shift, values in alike.items():
        report.claim(
            f"cosine of the two corrections, shift {shift:g}, t = "
            f"{TIMES[0]:g} to {TIMES[-1]:g}",
            "SG is the difference of scores (Eq. 9); the code takes that of outputs",
            f"{min(values):.2f} to {max(values):.2f}, negative at "
            f"{sum(v < 0 for v in values)} of {len(values)} times",
            {"one method: above 0.9 at every time": min(values) > 0.9},
        )
    ends = {
        (space, shift): [
            end(mixture, one)
            for one in points.sweep(
                mixture.network(),
                noise,
                [guidance.sg(w, shift=shift, space=space) for w in WEIGHTS],
                steps=STEPS,
            )
        ]
        for space in SPACES
        for shift in SHIFTS
    }
    at = WEIGHTS.index(3.0)
    for shift in SHIFTS:
        score, native = (ends[space, shift] for space in SPACES)
        report.claim(
            f"width of a mode over the truth at weight 3, shift {shift:g}",
            "weight 3 and shift 0.01 are published settings of the code; either way "
            "samples gather at the modes (Fig. 2)",
            f"scores {score[at]['width']:.3f}, raw outputs {native[at]['width']:.3f}, "
            f"without guidance {score[0]['width']:.3f}",
            {
                "scores: narrower by 1 % or more": score[at]["width"]
                < 0.99 * score[0]["width"],
                "raw outputs: narrower by 1 % or more": native[at]["width"]
                < 0.99 * native[0]["width"],
                "the two within 10 % of each other": abs(
                    score[at]["width"] / native[at]["width"] - 1
                )
                < 0.1,
            },
        )
    report.numbers["cosine"] = {
        shift: dict(zip(TIMES, values, strict=True)) for shift, values in alike.items()
    }
    report.numbers["ends"] = {
        f"{space}, shift {shift:g}": dict(zip(WEIGHTS, rows, strict=True))
        for (space, shift), rows in ends.items()
    }
    draw(report, alike, ends)


def corrections(mixture, x: jax.Array, t: float, shift: float) -> list[np.ndarray]:
    """What SG of weight 1 adds to the velocity, in scores and in raw outputs."""
    label = jnp.zeros(len(x), jnp.int32)
    network = mixture.network()
    plain = network.predict(x, jnp.full(len(x), t, jnp.float32), label)
    differences = []
    for space in SPACES:
        transform = guidance.sg(1.0, shift=shift, space=space)
        guided = guidance.guide(network.predict, transform, kind="velocity")
        moved, _ = guided(x, t, label, guided.init(x))
        differences.append(np.asarray(moved - plain, np.float64))
    return differences


def alignment(mixture, t: float, shift: float, *, count: int, seed: int) -> float:
    """Cosine of the two corrections over points of p_t."""
    x0 = mixture.sample(jax.random.key(seed), jnp.zeros(count, jnp.int32))
    noise = jax.random.normal(jax.random.key(seed + 1), x0.shape)
    x = paths.corrupt(x0, noise, paths.Linear().node(t))
    score, native = corrections(mixture, x, t, shift)
    norm = np.linalg.norm(score) * np.linalg.norm(native)
    return float((score * native).sum() / norm)


def end(mixture, made: np.ndarray) -> dict[str, float]:
    """Outliers, and the width of the modes over the truth."""
    std = float(mixture.stds[0])
    return {
        "outliers": points.outliers(mixture, made),
        "width": float(np.abs(made).std() / std),
    }


def draw(report: Report, alike: dict, ends: dict) -> None:
    """Cosine by time; outliers and width by weight."""
    figure, ((left, middle, right),) = figures.panels(3, width=3.6, height=3.4)
    lines = {f"shift {shift:g}": values for shift, values in alike.items()}
    figures.curves(left, TIMES, lines)
    left.axhline(0.0, color=figures.INK, lw=1, ls=":")
    left.set(xlabel="noise time t", ylabel="cosine of the two corrections")
    for panel, what, title in (
        (middle, "outliers", "outliers, %"),
        (right, "width", "width of a mode / truth"),
    ):
        factor = 100 if what == "outliers" else 1
        figures.curves(
            panel,
            WEIGHTS,
            {
                f"{NAMES[space]}, shift {shift:g}": [factor * v[what] for v in rows]
                for (space, shift), rows in ends.items()
            },
        )
        panel.set(xlabel="weight", ylabel=title)
    right.axhline(1.0, color=figures.INK, lw=1, ls=":")
    left.legend(fontsize="small")
    figures.legend_below(figure, middle, columns=2)
    report.save(figure, "spaces")
