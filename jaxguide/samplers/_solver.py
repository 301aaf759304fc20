"""The loop that all samplers share: one `lax.scan` per run of steps with the same live
guidance branches, or one for all runs if they come back again and again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxguide.guidance import Chain, Network, Step, _plan as plan, evaluate
from jaxguide.paths import Array, Node, Path
from jaxguide.samplers._base import Sampler, repeats, second_times

# Folded into a step's key for the noise of its second stage; 1, 2, ... are repeats.
_SECOND = 0x40000000


class Steps(NamedTuple):
    """Everything that changes from step to step; leaves [N, ...]."""

    index: Array
    node: Node
    chain: Chain
    next_node: Node  # the step's end
    second_node: Node  # where the second stage is evaluated, if there is one
    second_chain: Chain
    coefficients: Any


class Fixed(NamedTuple):
    """What stays the same while sampling."""

    networks: dict[str, Network]
    conds: dict[str, Any]
    guidance_key: Array | None
    sample_keys: Array | None
    constants: Chain | None = None  # see `Chain.constants`


class Carry(NamedTuple):
    x: Array
    guidance: Any  # the chain's state
    memory: Any  # the sampler's state


def traced(tree: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def per_step(parts: Chain, path: Path, sampler: Sampler, grid: np.ndarray) -> Steps:
    """Host coefficients and schedules of every step; windows judged at its start."""
    start, stop = grid[:-1], grid[1:]
    second = second_times(sampler, path, grid)
    # Only a corrector reads schedules there; log(t) need not exist at t = 0.
    corrected = np.where(sampler.stages(grid) == 2 * repeats(sampler), second, start)

    def node(times: np.ndarray) -> Node:
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
    """Host float64 leaves as float32 arrays."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def _solve(
    fixed: Fixed,
    steps: Steps,
    x: Array,
    state: Any,
    *,
    runs: tuple[plan.Run, ...],
    **how: Any,
) -> Array:
    """Scans every run in turn; runs that come back again and again share a scan."""
    modes = tuple(dict.fromkeys(run.mode for run in runs))
    carry = Carry(x, state, how["sampler"].init(x))
    if len(runs) > len(modes):
        which = plan.mode_indices(runs, modes)
        return march(fixed, steps, which, carry, modes=modes, **how).x
    for run in runs:
        part = jax.tree.map(lambda leaf, r=run: leaf[r.start : r.stop], steps)
        which = np.zeros(run.steps, np.int32)
        carry = march(fixed, part, which, carry, modes=(run.mode,), **how)
    return carry.x


def march(
    fixed: Fixed,
    steps: Steps,
    which: Array,
    carry: Carry,
    *,
    modes: tuple[tuple[tuple[bool, ...], int], ...],
    progress: Callable | None,
    **how: Any,
) -> Carry:
    """One scan over `steps`, each in the (live parts, stages) of `modes[which]`."""
    bodies = [
        functools.partial(_step, fixed, live=live, stages=stages, **how)
        for live, stages in modes
    ]

    def body(carry: Carry, each: tuple[Steps, Array]):
        at, mode = each
        carry = lax.switch(mode, bodies, carry, at)
        if progress is not None:
            jax.debug.callback(progress, at.index)
        return carry, None

    return lax.scan(body, carry, (steps, jnp.asarray(which)))[0]


_solve_jit = jax.jit(_solve, static_argnames=("runs", "sampler", "batched", "progress"))


def solve(fixed: Fixed, steps: Steps, x: Array, state: Any, **how: Any) -> Array:
    """x [B, *D] after all steps; compiled here unless the caller is traced."""
    run = _solve if traced((fixed, steps, x)) else _solve_jit
    return run(fixed, steps, x, state, **how)


def _step(
    fixed: Fixed,
    carry: Carry,
    at: Steps,
    *,
    live: tuple[bool, ...],
    stages: int,
    sampler: Sampler,
    batched: bool,
) -> Carry:
    """One step, which a recurrent sampler takes several times.

    Every time sees the memory of the step before; the last one's is kept.
    """
    if fixed.constants is not None:
        at = at._replace(
            chain=at.chain.with_constants(fixed.constants),
            second_chain=at.second_chain.with_constants(fixed.constants),
        )
    times = repeats(sampler)
    how: dict[str, Any] = {"live": live, "sampler": sampler, "batched": batched}
    how["stages"] = stages // times
    done = _once(fixed, carry, at, 0, **how)
    for turn in range(1, times):
        fresh = _fresh(fixed.sample_keys, at.index, carry.x, 2 * turn - 1)
        renoise = getattr(sampler, "renoise")  # noqa: B009
        x = renoise(done.x, at.coefficients, fresh).astype(carry.x.dtype)
        done = _once(fixed, carry._replace(x=x), at, turn, **how)
    return done


def _once(
    fixed: Fixed,
    carry: Carry,
    at: Steps,
    turn: int,
    *,
    live: tuple[bool, ...],
    stages: int,
    sampler: Sampler,
    batched: bool,
) -> Carry:
    """One step: predict, and correct if the run has two stages.

    Guidance state is committed by the first stage only. The corrector sees the memory
    of this step, the same random draws and the same live parts.
    """
    key = fixed.guidance_key
    step_key = None if key is None else jax.random.fold_in(key, at.index)
    if turn and step_key is not None:
        step_key = jax.random.fold_in(step_key, turn)

    def predict(x: Array, state: Any, parts: Chain, node: Node, restart: Array):
        step = Step(x, node, fixed.conds, restart, at.index, at.next_node)
        return evaluate(
            fixed.networks,
            parts,
            state,
            step,
            live=live,
            key=step_key,
            batched=batched,
        )

    first, guided = predict(carry.x, carry.guidance, at.chain, at.node, at.index == 0)
    fresh = None
    if sampler.stochastic:
        fresh = _fresh(fixed.sample_keys, at.index, carry.x, 2 * turn)
    x, memory = sampler.step(carry.x, carry.memory, first, at.coefficients, fresh)
    if stages == 2:
        never = jnp.zeros((), bool)
        second, _ = predict(x, guided, at.second_chain, at.second_node, never)
        drawn = None
        if fresh is not None:
            more = _fresh(fixed.sample_keys, at.index, carry.x, _SECOND + turn)
            drawn = fresh, more
        x = sampler.correct(carry.x, first, second, at.coefficients, drawn)
    return Carry(x.astype(carry.x.dtype), guided, memory)


def _fresh(keys: Array | None, index: Array, x: Array, draw: int) -> Array:
    """This step's noise [B, *D], from each sample's own key; `draw` counts."""

    def one(key: Array) -> Array:
        key = jax.random.fold_in(key, index)
        key = jax.random.fold_in(key, draw) if draw else key
        return jax.random.normal(key, x.shape[1:], x.dtype)

    return jax.vmap(one)(keys)
