"""The loop that all samplers share: one `lax.scan` over guided predictions.

A step of two stages, or one that is repeated, is several turns of the same loop: the
network is in the program once and not once per stage. Which branches are live
(evaluated) in a step is known on the host. Steps with the same live branches are one
scan, whose program contains no other branch, or all are in one scan in which a branch
is called where it is needed: see `plan.make_scans`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxguide.guidance import Chain, _plan as plan
from jaxguide.guidance._live import by_mode
from jaxguide.paths import Array, ArrayLike, Node, Path
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._turns import (
    Carry,
    Fixed,
    Program,
    Steps,
    predict,
    report,
    take_turn,
)


def make_program(
    sampler: Sampler,
    grid: np.ndarray,
    most: int | None,
    progress: Callable[[Array], None] | None = None,
) -> Program:
    """The program of a sampler along `grid` [N + 1]."""
    two = bool((sampler.stages(grid) > sampler.repeats).any())
    return Program(sampler, two, most, progress)


def traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def per_step(parts: Chain, path: Path, sampler: Sampler, grid: np.ndarray) -> Steps:
    """Host coefficients and schedules of every prediction; windows judged at the start
    of its step.

    Also for the second stage: were it judged at its own time, a step across the edge of
    a window would mix a guided prediction with one that is not.
    """
    stages = sampler.stages(grid)
    number = np.repeat(np.arange(len(stages)), stages)
    place = np.concatenate([np.arange(count) for count in stages])
    turn, stage = np.divmod(place, (stages // sampler.repeats)[number])
    start, stop = grid[:-1][number], grid[1:][number]
    # Only a corrector reads schedules there; log(t) need not exist at t = 0.
    times = np.where(stage == 1, sampler.second_times(path, grid)[number], start)

    def node(times: np.ndarray) -> Node:
        # Slopes may be infinite at the ends (sigma' of VP at t = 0).
        with np.errstate(all="ignore"):
            return to_float32(path.node(times))

    terms = to_float32(sampler.coefficients(path, grid))
    return Steps(
        number.astype(np.int32),
        turn.astype(np.int32),
        stage == 1,
        place == stages[number] - 1,
        node(times),
        parts.on_grid(times, start),
        node(stop),
        jax.tree.map(lambda leaf: leaf[number], terms),
    )


def to_float32(tree: Any) -> Any:
    """Host float64 leaves as float32 arrays: rounded once, after all arithmetic."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def _solve(
    program: Program,
    scans: tuple[plan.Scan, ...],
    fixed: Fixed,
    steps: Steps,
    which: ArrayLike,
    x: Array,
    state: Any,
) -> Array:
    """All scans in turn."""
    carry = begin(program, fixed, steps, x, state)
    for scan in scans:
        at, modes = jax.tree.map(
            lambda leaf, s=scan: leaf[s.start : s.stop], (steps, which)
        )
        carry = march(program, scan, fixed, at, modes, carry)
    return carry.x


_solve_jit = jax.jit(_solve, static_argnames=("program", "scans"))


def solve(
    program: Program,
    runs: tuple[plan.Run, ...],
    fixed: Fixed,
    steps: Steps,
    x: Array,
    state: Any,
) -> Array:
    """x [B, *D] after all steps; compiled here unless the caller is traced.

    Args:
        program, fixed: what stays the same.
        runs: what the steps evaluate, from `plan.make_runs`.
        steps: what changes from prediction to prediction.
        x: noisy state [B, *D] at the first step's start.
        state: of the chain, made by its `init`.
    """
    scans = plan.make_scans(
        whole(steps, fixed).chain, fixed.networks, runs,
        most=program.most_rows, rows=len(x),
    )  # fmt: skip
    which = plan.mode_indices(runs, plan.all_modes(runs))
    run = _solve if traced((fixed, steps, x)) else _solve_jit
    return run(program, scans, fixed, steps, which, x, state)


def begin(program: Program, fixed: Fixed, steps: Steps, x: Array, state: Any) -> Carry:
    """The carry before the first prediction."""
    memory = program.sampler.init(x)
    carry = Carry(x, state, memory)
    if program.sampler.repeats > 1:
        carry = carry._replace(start=(state, memory))
    if program.two_stages:
        # Without guidance, which leaves the shape of a pair as it is.
        at = jax.tree.map(lambda leaf: leaf[0], steps._replace(chain=Chain()))
        plain = carry._replace(state=())
        first, _ = jax.eval_shape(lambda: predict(program, (), fixed, plain, at))
        first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
        carry = carry._replace(begin=x, first=first)
    return carry


def whole(steps: Steps, fixed: Fixed) -> Steps:
    """The steps with what their chain's parts hold besides schedules."""
    if fixed.constants is None:
        return steps
    return steps._replace(chain=steps.chain.with_constants(fixed.constants))


def march(
    program: Program,
    scan: plan.Scan,
    fixed: Fixed,
    steps: Steps,
    which: ArrayLike,
    carry: Carry,
) -> Carry:
    """One scan over `steps`, each as `scan.modes[which]` says; `which` is int32 [E]."""

    def body(carry: Carry, each: tuple[Steps, Array]):
        at, mode = whole(each[0], fixed), each[1]
        carry = by_mode(
            scan.modes, mode, lambda live: take_turn(program, live, fixed, carry, at),
            shared=scan.shared,
        )  # fmt: skip
        report(program, at)
        return carry, None

    return lax.scan(body, carry, (steps, jnp.asarray(which)))[0]
