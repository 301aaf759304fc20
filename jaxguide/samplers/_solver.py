"""The loop that all samplers share.

Which branches are live (evaluated) in a step is known on the host. Steps with the same
live branches are one `lax.scan`, whose program contains no other branch. If runs of
steps come back again and again (a branch that is live in every second step),
there is one scan for all, which switches between the programs: with a scan per run the
network would be compiled once per run.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxguide.guidance import Chain, Network, Step, _plan as plan, evaluate
from jaxguide.paths import Array, ArrayLike, Node, Path
from jaxguide.samplers._base import Sampler

# Folded into a step's key for the noise of its second stage; 1, 2, ... are repeats.
_SECOND = 0x40000000

# Which parts of the chain are live in a step, and its stages; see `plan.Run.mode`.
Mode = tuple[tuple[bool, ...], int]

# The first step and the one after the last, int32 [].
Span = tuple[Any, Any]


class Steps(NamedTuple):
    """Everything that changes from step to step; leaves [N, ...]."""

    number: Any  # int32, 0, 1, ...
    node: Node
    chain: Chain
    next_node: Node  # the step's end
    second_node: Node  # where the second stage is evaluated, if there is one
    second_chain: Chain
    coefficients: Any


@dataclasses.dataclass(frozen=True)
class Program:
    """What stays the same while sampling and is no array. Static: equal ones share a
    compiled program."""

    sampler: Sampler
    batched: bool  # branches in one forward pass, see `generate`
    progress: Callable[[Array], None] | None = None


class Fixed(NamedTuple):
    """The arrays that stay the same while sampling."""

    networks: dict[str, Network]
    conds: dict[str, Any]
    guidance_key: Array | None
    sample_keys: Array | None
    constants: Chain | None = None  # see `Chain.constants`


class Carry(NamedTuple):
    x: Array
    state: Any  # the chain's
    memory: Any  # the sampler's


def traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def per_step(parts: Chain, path: Path, sampler: Sampler, grid: np.ndarray) -> Steps:
    """Host coefficients and schedules of every step; windows judged at its start.

    Also for the second stage: were it judged at its own time, a step across the edge of
    a window would mix a guided prediction with one that is not.
    """
    start, stop = grid[:-1], grid[1:]
    second = sampler.second_times(path, grid)
    # Only a corrector reads schedules there; log(t) need not exist at t = 0.
    corrected = np.where(sampler.stages(grid) == 2 * sampler.repeats, second, start)

    def node(times: np.ndarray) -> Node:
        # Slopes may be infinite at the ends (sigma' of VP at t = 0).
        with np.errstate(all="ignore"):
            return to_float32(path.node(times))

    return Steps(
        np.arange(len(start), dtype=np.int32),
        node(start),
        parts.on_grid(start, start),
        node(stop),
        node(second),
        parts.on_grid(corrected, start),
        to_float32(sampler.coefficients(path, grid)),
    )


def to_float32(tree: Any) -> Any:
    """Host float64 leaves as float32 arrays: rounded once, after all arithmetic."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def begin(program: Program, x: Array, state: Any) -> Carry:
    """The carry before the first step."""
    return Carry(x, state, program.sampler.init(x))


def walk(
    program: Program,
    runs: tuple[plan.Run, ...],
    fixed: Fixed,
    steps: Steps,
    carry: Carry,
    span: Span | None = None,
) -> Carry:
    """Scans every run in turn; runs that come back again and again share a scan.

    With a `span` these are loops that do the steps inside it alone: the same program
    then serves any part of the way.
    """
    modes = tuple(dict.fromkeys(run.mode for run in runs))
    if len(runs) > len(modes):
        which = plan.mode_indices(runs, modes)
        return march(program, modes, fixed, steps, which, carry, span)
    # Every mode occurs in one run: a scan for each, without a switch in its body.
    for run in runs:
        part = jax.tree.map(lambda leaf, r=run: leaf[r.start : r.stop], steps)
        which = np.zeros(run.steps, np.int32)
        inside = None if span is None else _inside(span, run.start, run.stop)
        carry = march(program, (run.mode,), fixed, part, which, carry, inside)
    return carry


def _inside(span: Span, start: int, stop: int) -> Span:
    """The part of `span` in `start` to `stop`, counted from `start`."""
    first, last = (jnp.clip(edge, start, stop) - start for edge in span)
    return first, last


def _solve(
    program: Program,
    runs: tuple[plan.Run, ...],
    fixed: Fixed,
    steps: Steps,
    x: Array,
    state: Any,
) -> Array:
    """All steps in one program."""
    return walk(program, runs, fixed, steps, begin(program, x, state)).x


_solve_jit = jax.jit(_solve, static_argnames=("program", "runs"))


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
        steps: what changes from step to step.
        x: noisy state [B, *D] at the first step's start.
        state: of the chain, made by its `init`.
    """
    run = _solve if traced((fixed, steps, x)) else _solve_jit
    return run(program, runs, fixed, steps, x, state)


def march(
    program: Program,
    modes: tuple[Mode, ...],
    fixed: Fixed,
    steps: Steps,
    which: ArrayLike,
    carry: Carry,
    span: Span | None = None,
) -> Carry:
    """One scan over `steps`, each as `modes[which]` says; `which` is int32 [N].

    A loop over those from `span[0]` to `span[1]`, exclusive, if that is given.
    """
    bodies = [functools.partial(_step, program, mode, fixed) for mode in modes]

    def body(carry: Carry, each: tuple[Steps, Array]):
        at, mode = each
        # A single mode is no switch: `lax.switch` then calls it directly.
        carry = lax.switch(mode, bodies, carry, at)
        if program.progress is not None:
            jax.debug.callback(program.progress, at.number)
        return carry, None

    over = steps, jnp.asarray(which)
    if span is None:
        return lax.scan(body, carry, over)[0]

    def at(place: Array, carry: Carry) -> Carry:
        each = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, place, keepdims=False), over
        )
        return body(carry, each)[0]

    return lax.fori_loop(*span, at, carry)


def _step(program: Program, mode: Mode, fixed: Fixed, carry: Carry, at: Steps) -> Carry:
    """One step, which a recurrent sampler takes several times.

    Every time sees the memory of the step before; the last one's is kept. Otherwise a
    transform that looks at the previous step would see the same step's first try.
    """
    if fixed.constants is not None:
        at = at._replace(
            chain=at.chain.with_constants(fixed.constants),
            second_chain=at.second_chain.with_constants(fixed.constants),
        )
    done = _turn(program, mode, fixed, carry, at, 0)
    for turn in range(1, program.sampler.repeats):
        fresh = _fresh(fixed.sample_keys, at.number, carry.x, 2 * turn - 1)
        x = program.sampler.renoise(done.x, at.coefficients, fresh)
        again = carry._replace(x=x.astype(carry.x.dtype))
        done = _turn(program, mode, fixed, again, at, turn)
    return done


def _turn(
    program: Program, mode: Mode, fixed: Fixed, carry: Carry, at: Steps, turn: int
) -> Carry:
    """Predicts at the step's start, moves, and corrects if there are two stages."""
    sampler, (live, stages) = program.sampler, mode
    key = _turn_key(fixed.guidance_key, at.number, turn)

    def predict(x: Array, state: Any, parts: Chain, node: Node, restart: Array):
        step = Step(x, node, fixed.conds, restart, at.number, at.next_node)
        return evaluate(
            fixed.networks, parts, state, step,
            live=live, key=key, batched=program.batched,
        )  # fmt: skip

    begin, fresh = carry.x, None
    if sampler.stochastic:
        fresh = _fresh(fixed.sample_keys, at.number, begin, 2 * turn)
        begin = sampler.churn(begin, at.coefficients, fresh).astype(begin.dtype)
    first, state = predict(begin, carry.state, at.chain, at.node, at.number == 0)
    x, memory = sampler.step(begin, carry.memory, first, at.coefficients, fresh)
    if stages == 2 * sampler.repeats:
        # The state it returns is dropped: a transform's memory is one entry per step,
        # at the steps' starts, whichever sampler runs. The second stage reads the
        # first one's memory, and draws what the first one drew: the same key.
        never = jnp.zeros((), bool)
        second, _ = predict(x, state, at.second_chain, at.second_node, never)
        both = None
        if fresh is not None:
            other = _fresh(fixed.sample_keys, at.number, carry.x, _SECOND + turn)
            both = fresh, other
        x = sampler.correct(begin, first, second, at.coefficients, both)
    return Carry(x.astype(carry.x.dtype), state, memory)


def _turn_key(key: Array | None, index: Array, turn: int) -> Array | None:
    """The key that transforms draw from; turn 0 is the step without recurrence.

    Folded by number, not split off one after the other: the draws of a step do not
    depend on how many steps came before it or how they were cut into scans.
    """
    if key is None:
        return None
    key = jax.random.fold_in(key, index)
    return jax.random.fold_in(key, turn) if turn else key


def _fresh(keys: Array | None, index: Array, x: Array, draw: int) -> Array:
    """This step's noise [B, *D], from each sample's own key; `draw` counts.

    A sample's noise is then the same in every batch and on any number of devices.
    """

    def one(key: Array) -> Array:
        key = jax.random.fold_in(key, index)
        key = jax.random.fold_in(key, draw) if draw else key
        return jax.random.normal(key, x.shape[1:], x.dtype)

    assert keys is not None  # `generate` has refused a stochastic sampler without
    return jax.vmap(one)(keys)
