"""What S2-Guidance costs beside CFG: FLOPs counted, time and memory measured.

A random transformer of 24 blocks is sampled in 28 steps, as in the paper's table. Times
are ratios within one run, in turns, after a warm-up each, and medians.

Source: Chen et al. 2025, arXiv:2508.12880, Table 5 and Sec. 4.5 (CFG 29.2 s and 168.4
    TFLOP, S2 40.2 s and 237.6 TFLOP, about 33.8 GB both).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, models, samplers
from jaxguide.experiments import figures
from jaxguide.experiments.report import Report
from jaxguide.models.weights import Weights
from jaxguide.sample.build import build_network
from jaxguide.samplers import grids

STEPS, SCALE, WEIGHT, MASKS = 28, 7.5, 0.25, 4
STEADY = 0.05  # standard error above which times are not judged
PAPER_FLOPS, PAPER_TIME = 237.6 / 168.4, 40.2 / 29.2
ARMS = (
    "no guidance",
    "CFG",
    "CFG + S2",
    "CFG + S2 at all t",
    f"CFG + naive S2 ({MASKS})",
)


def arms() -> dict[str, guidance.Chain]:
    """The chains that are timed."""
    cfg = guidance.cfg(SCALE)
    chains = (
        guidance.chain(),
        guidance.chain(cfg),
        guidance.chain(cfg, guidance.s2(WEIGHT)),
        guidance.chain(cfg, guidance.s2(WEIGHT, t_lo=0.0, t_hi=1.0)),
        guidance.chain(cfg, guidance.s2(WEIGHT, num_masks=MASKS)),
    )
    return dict(zip(ARMS, chains, strict=True))


def run(report: Report) -> None:
    """Fills the report."""
    setting = report.setting
    model = models.DiTConfig(
        image_size=setting.pick(8, 4),
        channels=4,
        patch=2,
        width=setting.pick(128, 8),
        depth=setting.pick(24, 4),
        heads=2,
        num_classes=10,
    )
    params = models.init(model, jax.random.key(setting.seed))
    weights = Weights(params, model, "linear", "velocity", ("",) * 10, {})
    network = build_network(weights)
    steps = setting.pick(STEPS, 4)
    costs = {
        name: samplers.cost(network, chain, grids.uniform(steps), samplers.euler())
        for name, chain in arms().items()
    }
    noise = jax.random.normal(
        jax.random.key(1), (setting.pick(8, 1), *model.image_shape)
    )
    programs = {
        name: compiled(network, noise, chain, steps) for name, chain in arms().items()
    }
    taken = times(programs, rounds=setting.pick(15, 1))
    ratios = {name: np.divide(each, taken["CFG"]) for name, each in taken.items()}
    unrest = max(map(error, ratios.values()))
    memory = {name: program.memory for name, program in programs.items()}
    rows = {
        name: {
            "nfe": costs[name].nfe,
            "flops": relative(name, {n: c.flops for n, c in costs.items()}),
            "time": float(np.median(ratios[name])),
            "memory": relative(name, memory),
        }
        for name in ARMS
    }
    report.numbers["cost"] = {"rows": rows, "seconds": taken, "error": unrest}
    judge(report, rows)
    judge_time(report, rows, unrest)
    draw(report, rows, timed=unrest <= STEADY)


class Program:
    """A compiled sampler and the memory that it needs, in bytes."""

    def __init__(self, call: Callable[[], Any], memory: int):
        self.call, self.memory = call, memory


def compiled(network, noise: jax.Array, chain, steps: int) -> Program:
    """One arm as one program, compiled before anything is timed."""
    label = jnp.zeros(len(noise), jnp.int32)
    null = jnp.full_like(label, 10)

    def generate(network, noise, key):
        return samplers.generate(
            network,
            noise,
            label,
            grid=grids.uniform(steps),
            sampler=samplers.euler(),
            guidance=chain,
            conds={"null": null},
            key=key,
            batched=False,
        )

    arguments = network, noise, jax.random.key(2)
    program = jax.jit(generate).lower(*arguments).compile()
    analysis = program.memory_analysis()
    memory = 0 if analysis is None else analysis.temp_size_in_bytes
    return Program(lambda: program(*arguments).block_until_ready(), memory)


def times(programs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """Seconds of every arm; one warm-up each, then all in turns."""
    for program in programs.values():
        program.call()
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            begun = time.perf_counter()
            program.call()
            taken[name].append(time.perf_counter() - begun)
    return taken


def error(ratios: np.ndarray) -> float:
    """Standard error of the median over the median, from the quartiles."""
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    deviation = (high - low) / 1.349  # were they normal
    return float(1.253 * deviation / np.sqrt(len(ratios)) / middle)


def relative(name: str, values: dict[str, Any]) -> float:
    """The value of an arm over that of CFG; NaN where nothing is known."""
    known = values["CFG"] and values[name] is not None
    return float(values[name] / values["CFG"]) if known else float("nan")


def judge(report: Report, rows: dict[str, dict[str, float]]) -> None:
    """Counted beside published, and memory."""
    single, every = rows["CFG + S2"], rows["CFG + S2 at all t"]
    report.claim(
        "FLOPs over those of CFG, counted",
        f"237.6 / 168.4 TFLOP = {PAPER_FLOPS:.2f} (Table 5)",
        f"{single['flops']:.3f} in the central 80 % of noise times, "
        f"{every['flops']:.3f} at all",
        {
            "within 5 % of the paper's": abs(single["flops"] / PAPER_FLOPS - 1) < 0.05,
            "the paper's lies between the two": single["flops"]
            < PAPER_FLOPS
            < every["flops"],
        },
    )
    report.claim(
        "working memory over that of CFG, as compiled",
        "unchanged: the passes run one after the other (Sec. 4.5)",
        f"{single['memory']:.3f}",
        {"at most 5 % more": single["memory"] <= 1.05},
    )


def judge_time(report: Report, rows: dict[str, dict[str, float]], unrest: float):
    """Times, unless something else was running at the same time."""
    claims = {
        "time over that of CFG": f"40.2 / 29.2 s = {PAPER_TIME:.2f}; about 40 % more "
        "(Table 5)",
        "time over FLOPs, both relative to CFG, every arm": "none: that our count is "
        "what is paid is our own promise",
    }
    if unrest > STEADY:
        reason = (
            f"medians have a standard error of {unrest:.0%} (limit {STEADY:.0%}): "
            "other programs were running"
        )
        for quantity, claim in claims.items():
            report.missing(quantity, claim, reason)
        return
    (alone, first), (both, second) = claims.items()
    taken = rows["CFG + S2"]["time"]
    ratios = {name: row["time"] / row["flops"] for name, row in rows.items()}
    report.claim(
        alone,
        first,
        f"{taken:.3f}; standard errors up to {unrest:.0%}",
        {"within 10 % of the paper's": abs(taken / PAPER_TIME - 1) < 0.1},
    )
    report.claim(
        both,
        second,
        ", ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()),
        {
            "within 10 % of 1 for every arm": all(
                abs(ratio - 1) < 0.1 for ratio in ratios.values()
            )
        },
    )


def draw(report: Report, rows: dict[str, dict[str, float]], timed: bool) -> None:
    """FLOPs, and time if it is known, of every arm as bars, relative to CFG."""
    figure, ((panel,),) = figures.panels(1, width=6.4, height=2.8)
    place = np.arange(len(rows))
    for offset, what, colour, hatch, label in (
        (0.2, "flops", figures.BLUE, "", "FLOPs, counted"),
        (-0.2, "time", figures.ORANGE, "//", "time, measured"),
    ):
        if what == "time" and not timed:
            continue
        values = [row[what] for row in rows.values()]
        look = {"height": 0.38, "color": colour, "hatch": hatch, "edgecolor": "white"}
        panel.barh(place + offset, values, label=label, **look)
        for at, value in zip(place + offset, values, strict=True):
            panel.text(value + 0.02, at, f"{value:.2f}", va="center", fontsize="small")
    panel.axvline(PAPER_FLOPS, color=figures.INK, ls=":", lw=1, label="paper, S2")
    names = [f"{name}\n{row['nfe']} NFE" for name, row in rows.items()]
    panel.set_yticks(place, names, fontsize="small")
    panel.invert_yaxis()
    panel.set(xlabel="relative to CFG", xlim=(0, 1.1 * panel.get_xlim()[1]))
    figures.legend_below(figure, panel)
    report.save(figure, "cost")
