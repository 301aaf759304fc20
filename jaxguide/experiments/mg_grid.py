"""Model-Guidance on two classes in the plane: squares of a board, gaps between them.

A small network is trained plainly and with Model-Guidance for the same number of steps,
and sampled with and without classifier-free guidance. Counted are samples outside the
squares of their class ("outliers"), the cells of those squares that samples reach
("coverage"), how much a trajectory turns, and how samples lie in their squares.

Source: Tang et al. 2025, arXiv:2502.12154, Fig. 2, whose set, sizes and measures are
    not published; those here are this module's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxguide import guidance
from jaxguide.evaluate import toy
from jaxguide.experiments import figures, points
from jaxguide.experiments.fitting import Recipe, fit
from jaxguide.experiments.network import PointNet
from jaxguide.experiments.report import Report

BOARD = toy.Board()
NULL = 2
NET = PointNet(2, classes=NULL, width=128, depth=2, waves=4)
WEIGHTS = (0.2, 0.45)  # of Model-Guidance
STEPS = 50
EARLY = 0.8  # noise time down to which a trajectory has begun


class Arm(NamedTuple):
    """One way to train and sample."""

    weight: float  # of Model-Guidance
    scale: float  # of classifier-free guidance


def learnt(weight: float) -> float:
    """The scale of CFG that Model-Guidance teaches."""
    return 1 / (1 - weight)


ARMS = {
    "conditional": Arm(0.0, 1.0),
    **{f"CFG {learnt(w):.2f}": Arm(0.0, learnt(w)) for w in WEIGHTS},
    "CFG 3": Arm(0.0, 3.0),
    **{f"MG, weight {w:g}": Arm(w, 1.0) for w in WEIGHTS},
}
PAIRS = {f"CFG {learnt(w):.2f}": f"MG, weight {w:g}" for w in WEIGHTS}


def counts(made: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Share of outliers, and share of the cells of both classes that are reached."""
    places = BOARD.place(made, label)
    return toy.outlier_rate(places), toy.mode_coverage(places)


def train(weight: float, recipe: Recipe, *, seed: int = 0) -> guidance.Network:
    """The averaged network; guidance starts after a share of the steps."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 200_000)
    data = BOARD.sample(rng, label)
    fitted = fit(NET, data, label, recipe, seed=seed, weight=weight)
    return NET.network(fitted.params)


def sample(network: guidance.Network, scale: float, count: int, *, seed: int = 1):
    """Points and labels, both classes in turn, sampled with CFG of `scale`."""
    label = np.arange(count) % 2
    noise = points.start(count, 2, seed)
    transforms = (guidance.cfg(scale),)
    made = points.sample(
        network, noise, label, null=NULL, steps=STEPS, transforms=transforms
    )
    return made, label


def run(report: Report) -> None:
    """Fills the report."""
    setting = report.setting
    recipe = Recipe(setting.pick(5000, 10))
    networks = {
        weight: train(weight, recipe, seed=setting.seed) for weight in (0.0, *WEIGHTS)
    }
    count = setting.pick(4000, 40)
    rng = np.random.default_rng(setting.seed + 2)
    label = np.arange(count) % 2
    sets = {"data": (BOARD.sample(rng, label), label)}
    for name, arm in ARMS.items():
        made = sample(networks[arm.weight], arm.scale, count, seed=setting.seed + 1)
        sets[name] = made
    followed = np.arange(setting.pick(500, 4)) % 2
    lines = {
        name: ways(networks[arm.weight], arm.scale, followed)
        for name, arm in ARMS.items()
    }
    rows = {name: measures(*one) for name, one in sets.items()}
    for name, line in lines.items():
        rows[name]["early_turn"], rows[name]["turn"] = turning(line)
    nowhere = np.full(count, NULL)
    made = unconditional(networks[0.0], count, seed=setting.seed + 1)
    rows["unconditional"] = {"outliers": float(1 - inside_any(made).mean())}
    report.numbers["grid"] = rows
    judge(report, rows)
    sets["unconditional"] = made, nowhere
    lines["unconditional"] = ways(networks[0.0], 1.0, np.full_like(followed, NULL))
    draw(report, sets, lines)


def measures(made: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Outliers, coverage, and where samples lie in the square they belong to.

    `spread` is the standard deviation about a square's centre over that of points
    that fill it evenly; `offset` is the mean over squares of how far their samples'
    mean is from the centre, over the edge: 0 is symmetric.
    """
    places = BOARD.place(made, label)
    at = made[places.inside] + (BOARD.side - 1) / 2
    square = np.clip(np.round(at), 0, BOARD.side - 1)
    within = (at - square) / BOARD.edge
    index = (square @ [BOARD.side, 1]).astype(int)
    means = [within[index == i].mean(axis=0) for i in np.unique(index)]
    outliers, coverage = counts(made, label)
    return {
        "outliers": outliers,
        "coverage": coverage,
        "spread": float(within.std() * np.sqrt(12)) if len(within) else float("nan"),
        "offset": float(np.mean([np.linalg.norm(m) for m in means] or [np.nan])),
    }


def unconditional(network: guidance.Network, count: int, *, seed: int) -> np.ndarray:
    """Points sampled without a class."""
    return points.sample(network, points.start(count, 2, seed), NULL, null=NULL)


def inside_any(made: np.ndarray) -> np.ndarray:
    """Whether points lie in a square of either class, bool [N]."""
    ones = np.ones(len(made), int)
    return BOARD.place(made, ones).inside | BOARD.place(made, 0 * ones).inside


def ways(network: guidance.Network, scale: float, label: np.ndarray) -> np.ndarray:
    """Trajectories [steps + 1, B, 2] of Euler from the same noise, for labels [B]."""
    count, labels = len(label), jnp.asarray(label, jnp.int32)
    null = jnp.full_like(labels, NULL)
    guided = guidance.guide(network.predict, guidance.cfg(scale))

    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        t = jnp.broadcast_to(1 - i.astype(x.dtype) / STEPS, (count,))
        velocity, _ = guided(x, t, labels, guided.init(x), conds={"null": null})
        x = x - velocity / STEPS
        return x, x

    noise = points.start(count, 2, 7)
    _, path = jax.jit(lambda x: lax.scan(step, x, jnp.arange(STEPS)))(noise)
    return np.concatenate([np.asarray(noise)[None], np.asarray(path)])


def turning(path: np.ndarray) -> tuple[float, float]:
    """Degrees that a trajectory turns, on average: early, and in all."""
    moves = np.diff(path, axis=0)
    first, second = moves[:-1], moves[1:]
    norm = np.linalg.norm(first, axis=2) * np.linalg.norm(second, axis=2)
    cosine = (first * second).sum(axis=2) / np.maximum(norm, 1e-12)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    early = angle[: round((1 - EARLY) * STEPS) - 1]
    return float(early.sum(axis=0).mean()), float(angle.sum(axis=0).mean())


def judge(report: Report, rows: dict[str, dict[str, float]]) -> None:
    """The claims of Fig. 2, with CFG of the scale that each weight teaches."""

    def line(what: str, form: str) -> str:
        return ", ".join(
            f"{name} {row[what]:{form}}" for name, row in rows.items() if what in row
        )

    plain = rows["conditional"]
    report.claim(
        "outliers",
        "CFG removes them; MG leaves fewer than the conditional model (Fig. 2a)",
        line("outliers", ".2%"),
        {
            f"{name} below conditional": rows[name]["outliers"] < plain["outliers"]
            for pair in PAIRS.items()
            for name in pair
        },
    )
    report.claim(
        "coverage of cells",
        "CFG concentrates and loses diversity; MG covers better (Fig. 2a)",
        line("coverage", ".1%"),
        {
            f"{cfg} below conditional": rows[cfg]["coverage"] < plain["coverage"]
            for cfg in PAIRS
        }
        | {
            f"{mg} above {cfg}": rows[mg]["coverage"] > rows[cfg]["coverage"]
            for cfg, mg in PAIRS.items()
        },
    )
    report.claim(
        f"degrees that trajectories turn before t = {EARLY:g}",
        "CFG turns sharply at the beginning, MG goes straight to the data (Fig. 2b)",
        line("early_turn", ".1f"),
        {
            f"{mg} turns less than {cfg}": rows[mg]["early_turn"]
            < rows[cfg]["early_turn"]
            for cfg, mg in PAIRS.items()
        }
        | {
            f"{mg} turns no more than conditional": rows[mg]["early_turn"]
            <= plain["early_turn"]
            for mg in PAIRS.values()
        },
    )
    report.claim(
        "offset of samples from the centres of their squares, over the edge",
        "MG's density is more symmetric than CFG's (Fig. 2c)",
        line("offset", ".3f"),
        {
            f"{mg} below {cfg}": rows[mg]["offset"] < rows[cfg]["offset"]
            for cfg, mg in PAIRS.items()
        },
    )


COLOURS = (figures.ORANGE, figures.BLUE, figures.GREY)  # of the classes, and none
SHOWN = ("data", "conditional", "unconditional", *list(PAIRS.items())[-1])


def draw(report: Report, sets: dict[str, Any], lines: dict[str, np.ndarray]) -> None:
    """Samples above, trajectories from noise (crosses) below; one way per column."""
    figure, axes = figures.panels(len(SHOWN), 2, width=2.5, height=2.6)
    for name, upper, lower in zip(SHOWN, *axes, strict=True):
        made, label = sets[name]
        for c, colour in enumerate(COLOURS):
            figures.scatter(upper, made[label == c], 2.6, color=colour)
        upper.set(title=name)
        if name not in lines:
            lower.axis("off")
            continue
        for i, way in enumerate(lines[name][:, :40].transpose(1, 0, 2)):
            colour = COLOURS[2 if name == "unconditional" else i % 2]
            lower.plot(*way.T, color=colour, lw=0.8, alpha=0.8)
            lower.plot(*way[0], "x", color=colour, ms=3)
            lower.plot(*way[-1], "o", color=figures.INK, ms=1.5)
        lower.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
        lower.tick_params(labelsize="small")
    axes[0, 0].set(ylabel="samples")
    axes[1, 1].set(ylabel="trajectories")
    report.save(figure, "samples")
