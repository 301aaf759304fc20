"""What a chain will cost on a grid, and the runs of steps that share live branches.

Schedules are known on the host, so the steps are cut into runs in which the same parts
are live; a sampler scans each run on its own, and a dead branch is not in its program.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxguide.guidance._base import (
    RAW,
    Branch,
    Network,
    OwnedBranch,
    find_network,
)
from jaxguide.guidance._chain import Chain
from jaxguide.guidance._schedule import is_schedule


class Run(NamedTuple):
    """Steps `start` to `stop` (exclusive), which all run the same program."""

    start: int
    stop: int
    live: tuple[bool, ...]
    stages: int  # guided predictions per step: 1, or 2 with a corrector

    @property
    def steps(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def mode(self) -> tuple[tuple[bool, ...], int]:
        """The program of a step: (live parts, stages)."""
        return self.live, self.stages


@dataclasses.dataclass(frozen=True)
class Cost:
    """What sampling one image takes; a promise, checked against counted calls."""

    steps: int
    nfe: int  # network evaluations per image, all networks
    flops: float | None  # per image; None if a network does not know its own
    unguided_nfe: int  # the same sampler without guidance
    least_nfe: int  # if every gated transform stops after the first step; else `nfe`

    def __str__(self) -> str:
        flops = "" if self.flops is None else f", {self.flops / 1e9:.4g} GFLOP"
        low = "" if self.least_nfe == self.nfe else f"{self.least_nfe} to "
        most = "" if not low or not flops else " at most"
        return f"{self.steps} steps, {low}{self.nfe} NFE per image{flops}{most}"


def make_runs(chain: Chain, grid: np.ndarray, stages: np.ndarray) -> tuple[Run, ...]:
    """Cuts the steps of `grid` [N + 1] where a part goes live or dead, or `stages` [N]
    changes; static and hashable."""
    runs: list[Run] = []
    for i, (t, count) in enumerate(zip(grid[:-1], stages, strict=True)):
        live = chain.live(float(t), i)
        if runs and runs[-1].live == live and runs[-1].stages == count:
            runs[-1] = runs[-1]._replace(stop=i + 1)
        else:
            runs.append(Run(i, i + 1, live, int(count)))
    return tuple(runs)


def mode_indices(runs: tuple[Run, ...], modes: tuple) -> np.ndarray:
    """Which of `modes` each step runs, int32 [N]."""
    found = [modes.index(run.mode) for run in runs for _ in range(run.steps)]
    return np.asarray(found, np.int32)


class Piece(NamedTuple):
    """An interval of noise time in which the same parts are live."""

    start: float  # the noisier end
    stop: float
    live: tuple[bool, ...]


def make_pieces(chain: Chain, start: float = 1.0, stop: float = 0.0) -> list[Piece]:
    """Cuts `start` to `stop` at the window edges of the chain, noisiest piece first.

    For integrations whose times are not known on the host. A schedule with a shape
    counts as live in all of its window.
    """
    leaves = jax.tree.leaves(chain, is_leaf=is_schedule)
    windows = [w for leaf in leaves if is_schedule(leaf) for w in leaf.windows]
    edges = {start, stop} | {t for w in windows for t in (w.t_lo, w.t_hi)}
    inside = sorted((t for t in edges if stop <= t <= start), reverse=True)
    flat = jax.tree.map(_without_shape, chain, is_leaf=is_schedule)
    pieces: list[Piece] = []
    for high, low in zip(inside[:-1], inside[1:], strict=True):
        pieces.append(Piece(high, low, flat.live((high + low) / 2)))
    return pieces


def _without_shape(leaf: Any) -> Any:
    """NaN, which no weight is neutral at, in place of a shape that may cross 0."""
    if not is_schedule(leaf) or leaf.shape is None:
        return leaf
    return dataclasses.replace(leaf, value=np.nan, shape=None)


def cost(chain: Chain, networks: Mapping[str, Network], runs: tuple[Run, ...]) -> Cost:
    """Network evaluations and FLOPs per image of these runs."""
    nfe, least, flops = 0, 0, 0.0
    for run in runs:
        times = run.steps * run.stages
        here = evaluations(chain, networks, run.live)
        nfe += times * here
        branches = _branches(chain, networks, run.live)
        flops += times * sum(_flops(networks, branch) for branch in branches)
        shut = [on and not g for on, g in zip(run.live, chain.gated(), strict=True)]
        saved = here - evaluations(chain, networks, tuple(shut))
        # Gates see the state of a whole step, so the first step is always open.
        least += times * here - saved * (times - run.stages * (run.start == 0))
    plain = _calls(networks, RAW)
    unguided = plain * sum(run.steps * run.stages for run in runs)
    known = not np.isnan(flops)
    return Cost(runs[-1].stop, nfe, flops if known else None, unguided, least)


def evaluations(
    chain: Chain, networks: Mapping[str, Network], live: tuple[bool, ...]
) -> int:
    """Network evaluations per sample of one guided prediction.

    A branch may count as several: two conditions side by side, crops of an image.
    """
    branches = _branches(chain, networks, live)
    return sum(_calls(networks, branch) for branch in branches)


def _branches(
    chain: Chain, networks: Mapping[str, Network], live: tuple[bool, ...]
) -> tuple[Branch, ...]:
    """The distinct branches of a step, `RAW` among them."""
    wanted = chain.branches(networks["main"], live)
    return tuple(one.branch for one in dict.fromkeys((OwnedBranch(RAW), *wanted)))


def _calls(networks: Mapping[str, Network], branch: Branch) -> int:
    """Evaluations per sample that one branch takes."""
    return branch.calls * find_network(networks, branch).calls


def _flops(networks: Mapping[str, Network], branch: Branch) -> float:
    """FLOPs of one branch per sample; NaN if unknown."""
    network = find_network(networks, branch)
    if network.flops is None:
        return float("nan")
    share = branch.change.share(network)
    gradient = 3.0 if branch.differentiable else 1.0
    return network.flops * share * branch.calls * gradient
