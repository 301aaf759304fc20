"""One interface for all samplers, and `generate`, which drives them.

A sampler is a frozen dataclass: its coefficients are computed on the host in float64
for a whole grid; its step is a pure function of the guided pair (denoised, noise), so
that it serves velocity, noise, denoised and score networks alike. The loop is one
`lax.scan` per run of steps with the same live guidance branches.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxguide import schedules
from jaxguide.guidance import plan
from jaxguide.guidance.base import Network, Step, Transform
from jaxguide.guidance.chain import Chain, chain
from jaxguide.guidance.evaluate import Pair, default_batched, evaluate
from jaxguide.paths import Array, Node, Path

# Folded into a sample's key for its initial noise; steps fold in 0, 1, 2, ...
_INITIAL = 0x7FFFFFFF
# Folded into a step's key for the noise of its second stage; 1, 2, ... are repeats.
_SECOND = 0x40000000


class Sampler(Protocol):
    """A fixed-step sampler: static, hashable, without state of its own.

    One whose second stage is not at the step's end also has a method
    `second_times(path, grid)`: its noise times on the host, float64 [N].
    """

    @property
    def stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""
        ...

    def stages(self, grid: np.ndarray) -> np.ndarray:
        """Guided predictions in each step of `grid` [N + 1]: int [N], 1 or 2."""
        ...

    def coefficients(self, path: Path, grid: np.ndarray) -> Any:
        """A pytree of host arrays [N], sliced per step."""
        ...

    def init(self, x: Array) -> Any:
        """Memory of the sampler itself (multistep history), or ()."""
        ...

    def step(
        self, x: Array, memory: Any, pair: Pair, c: Any, fresh: Array | None
    ) -> tuple[Array, Any]:
        """(next x, next memory) from the guided pair at the step's start."""
        ...

    def correct(
        self,
        x: Array,
        first: Pair,
        second: Pair,
        c: Any,
        fresh: tuple[Array, Array] | None,
    ) -> Array:
        """The corrected next x; only called for steps of two stages.

        `first` was made at x, `second` at what `step` returned. `fresh` is the noise
        that `step` had and another draw.
        """
        ...


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


def sample_keys(seed: int | Array, indices: Array) -> Array:
    """One PRNG key per sample, [B]: a function of seed and sample index alone.

    Images therefore do not depend on the batch size or the number of devices.

    Args:
        seed: integer or typed PRNG key.
        indices: int [B], the samples' numbers in the whole set.
    """
    key = jax.random.key(seed) if isinstance(seed, int | np.integer) else seed
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))


def initial_noise(
    keys: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
    """Unit Gaussian noise [B, *shape], drawn per sample from `keys` [B]."""

    def draw(key: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, _INITIAL), shape, dtype)

    return jax.vmap(draw)(keys)


def cost(
    network: Network,
    guidance: Chain | Transform,
    grid: Any,
    sampler: Sampler,
    *,
    networks: Mapping[str, Network] | None = None,
) -> plan.Cost:
    """What `generate` with the same arguments will take, before it runs.

    Returns:
        NFE and FLOPs per image; equal to the counted evaluations.
    """
    grid = schedules.check_grid("cost", grid)
    parts = as_chain(guidance)
    runs = plan.make_runs(parts, grid, sampler.stages(grid))
    return plan.cost(parts, {"main": network, **(networks or {})}, runs)


def generate(
    network: Network,
    noise: Array,
    cond: Any,
    *,
    grid: Any,
    sampler: Sampler,
    guidance: Chain | Transform | None = None,
    conds: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    key: Array | None = None,
    keys: Array | None = None,
    batched: bool | None = None,
    progress: Callable[[Array], None] | None = None,
) -> Array:
    """Samples from noise to data along `grid`, guided.

    Compiles once per structure: other scales, weights, keys, grids of the same length
    or windows with the same live steps do not recompile. May be called under `jit`,
    `vmap` and `grad`; a traced weight is taken to be live.

    Args:
        network: the main network; its `kind` and `path` decide all conversions.
        noise: unit Gaussian [B, *D]; scaled to the path's sigma at the grid's start.
        cond: its condition, a pytree with leaves [B, ...], or None.
        grid: strictly decreasing noise times [N + 1] on the host, see `schedules`.
        sampler: such as `euler()`.
        guidance: a transform or a `chain`; None for none.
        conds: named further conditions, such as `{"null": labels}`.
        networks: named further networks, such as `{"weak": Network(...)}`.
        key: shared by the batch, for transforms that draw (S2).
        keys: one per sample [B], for stochastic samplers; see `sample_keys`.
        batched: branches in one forward pass (True) or one call each (False); None
            chooses by backend.
        progress: called on the host with the index of each finished step; part of
            the compiled program, so pass one function, not a new lambda per call.

    Returns:
        Samples [B, *D] at the grid's last time, in the dtype of `noise`.

    Raises:
        ValueError: for a bad grid, missing conditions, networks or keys.
    """
    grid = check("generate", network, grid, sampler, keys)
    parts = as_chain(guidance)
    stages = sampler.stages(grid)
    runs = plan.make_runs(parts, grid, stages)
    fixed = Fixed(
        {"main": network, **(networks or {})},
        {"cond": cond, **(conds or {})},
        key,
        keys,
        parts.constants(),
    )
    steps = per_step(parts, network.path, sampler, grid)
    batched = default_batched() if batched is None else batched
    return solve(
        fixed,
        steps,
        at_start(network.path, grid, noise),
        parts.init(noise),
        runs=runs,
        sampler=sampler,
        batched=batched,
        progress=progress,
    )


def check(
    name: str, network: Network, grid: Any, sampler: Sampler, keys: Array | None
) -> np.ndarray:
    """`grid` as float64 [N + 1], if the network can be sampled along it.

    Raises:
        ValueError: for a bad grid or missing keys; `name` is who asks.
    """
    grid = schedules.check_grid(name, grid)
    if sampler.stochastic and keys is None:
        raise ValueError(
            f"{name}: need keys [B] for a stochastic sampler, got keys=None. "
            "Pass keys=sample_keys(seed, jnp.arange(batch))."
        )
    first = network.path.node(grid[0])
    if network.kind in ("noise", "score") and first.alpha < 1e-8:
        raise ValueError(
            f"{name}: need alpha > 0 at the grid's start for a {network.kind} "
            f"network, which tells nothing of the data otherwise; got "
            f"grid[0]={float(grid[0])!r} on {network.path!r}. Start below 1."
        )
    return grid


def at_start(path: Path, grid: np.ndarray, noise: Array) -> Array:
    """Unit noise [B, *D] scaled to the path's sigma at the grid's start."""
    return noise * jnp.asarray(float(path.node(grid[0]).sigma), noise.dtype)


def as_chain(guidance: Chain | Transform | None) -> Chain:
    """A chain of whatever the user gave."""
    return chain() if guidance is None else chain(guidance)


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


def repeats(sampler: Sampler) -> int:
    """How often each step is taken; more than once by `recurrent` alone."""
    return getattr(sampler, "repeats", 1)


def second_times(sampler: Sampler, path: Path, grid: np.ndarray) -> np.ndarray:
    """Where each step's second stage is evaluated, [N]: at its end, by default."""
    times = getattr(sampler, "second_times", None)
    return grid[1:] if times is None else times(path, grid)


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
