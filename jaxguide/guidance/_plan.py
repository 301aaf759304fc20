"""What a chain will cost on a grid, and which steps share a program.

A part of a chain is *live* in a step if its branches are evaluated there. Schedules are
known on the host, so the steps are cut into runs in which the same parts are live.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxguide.guidance._base import RAW, Branch, OwnedBranch, find_network
from jaxguide.guidance._batching import groups, rows_on
from jaxguide.guidance._chain import Chain
from jaxguide.guidance._network import Network
from jaxguide.guidance._schedule import is_schedule


class Run(NamedTuple):
    """Steps `start` to `stop` (exclusive) with the same live parts."""

    start: int
    stop: int
    live: tuple[bool, ...]
    stages: int  # guided predictions per step: 1, or 2 with a corrector

    @property
    def steps(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def predictions(self) -> int:
        """How many guided predictions they take."""
        return self.steps * self.stages


class Piece(NamedTuple):
    """An interval of noise time in which the same parts are live."""

    start: float  # the noisier end
    stop: float
    live: tuple[bool, ...]


class Scan(NamedTuple):
    """Guided predictions `start` to `stop` (exclusive) that share a compiled body."""

    start: int
    stop: int
    modes: tuple[tuple[bool, ...], ...]  # the live parts of every kind of step
    shared: bool = False  # see `by_mode`


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
    """Cuts the steps of `grid` [N + 1] where a part becomes live or stops being live,
    or `stages` [N] changes; static and hashable."""
    runs: list[Run] = []
    for i, (t, count) in enumerate(zip(grid[:-1], stages, strict=True)):
        live = chain.live(float(t), i)
        if runs and runs[-1].live == live and runs[-1].stages == count:
            runs[-1] = runs[-1]._replace(stop=i + 1)
        else:
            runs.append(Run(i, i + 1, live, int(count)))
    return tuple(runs)


def all_modes(runs: Iterable[Run] | Iterable[Piece]) -> tuple[tuple[bool, ...], ...]:
    """The distinct live parts of runs or pieces, in order."""
    return tuple(dict.fromkeys(run.live for run in runs))


def mode_indices(runs: tuple[Run, ...], modes: tuple) -> np.ndarray:
    """Which of `modes` each guided prediction has, int32 [E]."""
    indices = [modes.index(run.live) for run in runs for _ in range(run.predictions)]
    return np.asarray(indices, np.int32)


def make_scans(
    chain: Chain, networks: Mapping[str, Network], runs: tuple[Run, ...], **calls: Any
) -> tuple[Scan, ...]:
    """The loops of a program; `calls` are the limits on calls, as in `groups`.

    A scan for each run has only the branches that are live there, and may put them into
    one forward pass. Where runs come back, they share a scan that switches between
    their programs. Where that makes a network occur more often in the program than it
    has branches, all share one scan in which every branch occurs once.
    """
    modes = all_modes(runs)
    edges, lives = [0], []
    for run in runs:
        if not lives or lives[-1] != run.live:
            edges.append(edges[-1])
            lives.append(run.live)
        edges[-1] += run.predictions
    bits = share_program(chain, networks, modes, **calls)
    if bits or len(lives) > len(modes):
        return (Scan(0, edges[-1], modes, bits),)
    each = zip(edges[:-1], edges[1:], lives, strict=True)
    return tuple(Scan(start, stop, (live,)) for start, stop, live in each)


def share_program(
    chain: Chain,
    networks: Mapping[str, Network],
    modes: Sequence[tuple[bool, ...]],
    *,
    most: int | None,
    rows: int,
) -> bool:
    """Whether a program for each of `modes` has more calls than there are branches.

    `most` and `rows` as in `groups`; for a device that is not known (None) as on this
    host, which bears on the form of the program alone.
    """
    if most is None:
        most = rows_on(jax.default_backend())
    distinct: dict[OwnedBranch, None] = {}
    copies = 0
    for live in modes:
        wanted = chain.branches(networks["main"], live)
        sure = chain.branches(networks["main"], chain.without_gates(live))
        sure = dict.fromkeys((OwnedBranch(RAW), *sure))
        gated = dict.fromkeys(one for one in wanted if one not in sure)
        distinct |= sure | gated
        # What waits for a gate shares no call with what does not.
        copies += len(groups(networks, sure, most, rows)) + len(gated)
    return copies > len(distinct)


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
        # Windows do not change inside a piece, so its middle stands for all of it.
        pieces.append(Piece(high, low, flat.live((high + low) / 2)))
    return pieces


def _without_shape(leaf: Any) -> Any:
    """NaN, which no weight is neutral at, in place of a shape that may cross 0."""
    if not is_schedule(leaf) or leaf.shape is None:
        return leaf
    # One time is judged for the whole piece, and a curve may be neutral at that time by
    # chance. NaN equals no number, so the part is live wherever its window is open.
    return dataclasses.replace(leaf, value=np.nan, shape=None)


def cost(chain: Chain, networks: Mapping[str, Network], runs: tuple[Run, ...]) -> Cost:
    """Network evaluations and FLOPs per image of these runs."""
    # Two numbers, because a gate closes while sampling and not on the host: `nfe` has
    # every gate open in all steps, `least` has it closed from the second step on.
    nfe, least, flops = 0, 0, 0.0
    for run in runs:
        times = run.steps * run.stages
        here = evaluations(chain, networks, run.live)
        nfe += times * here
        branches = _branches(chain, networks, run.live)
        flops += times * sum(branch_flops(networks, branch) for branch in branches)
        saved = here - evaluations(chain, networks, chain.without_gates(run.live))
        # Gates see the state of a whole step, so the first step is always open.
        least += times * here - saved * (times - run.stages * (run.start == 0))
    plain = _calls(networks, RAW)
    unguided = plain * sum(run.steps * run.stages for run in runs)
    # NaN survives the sum: with one network of unknown FLOPs the total is unknown.
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


def branch_flops(networks: Mapping[str, Network], branch: Branch) -> float:
    """FLOPs of one branch per sample; NaN if unknown."""
    network = find_network(networks, branch)
    if network.flops is None:
        return float("nan")
    share = branch.change.share(network)
    # Forward and backward; the latter is counted as two forward passes.
    gradient = 3.0 if branch.differentiable else 1.0
    return network.flops * share * branch.calls * gradient
