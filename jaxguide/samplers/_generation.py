"""`generate`: from noise to data, guided; and what it will cost."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import (
    Chain,
    Network,
    Transform,
    _plan as plan,
    chain,
)
from jaxguide.guidance._batching import most_rows
from jaxguide.guidance._chain import check_acts
from jaxguide.paths import Array, Path
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_determined
from jaxguide.samplers._inputs import (
    check_arrays,
    check_networks,
    check_sampler,
)
from jaxguide.samplers._solver import (
    Span,
    begin,
    make_program,
    per_step,
    solve,
    walk,
)
from jaxguide.samplers._turns import Carry, Fixed, Program, Steps


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A guidance along a grid as numbers, which `generate` takes in its place.

    A pytree: as the argument of a compiled program it serves all guidances of equal
    structure and live steps. A chain as an argument would not do: whether its traced
    weights are neutral is not known, so that all its branches would be evaluated.
    """

    steps: Steps
    constants: Chain  # see `Chain.constants`
    runs: tuple[plan.Run, ...]  # static, they decide the program

    @property
    def ends(self) -> np.ndarray:
        """How many predictions the steps before 0, 1, ... N took, on the host."""
        return np.concatenate([[0], np.flatnonzero(self.steps.last) + 1])

    @property
    def chain(self) -> Chain:
        """The chain with its numbers at every step [N] in the place of schedules."""
        return self.steps.chain.with_constants(self.constants)

    def cost(self, networks: Mapping[str, Network]) -> plan.Cost:
        """What it takes per image; `networks` with "main" among them."""
        return plan.cost(self.chain, networks, self.runs)


jax.tree_util.register_dataclass(
    Prepared, data_fields=["steps", "constants"], meta_fields=["runs"]
)


def prepare(
    guidance: Chain | Transform | Prepared | None,
    path: Path,
    grid: np.ndarray,
    sampler: Sampler,
) -> Prepared:
    """What a guidance is at every step of `grid`, and which branches are live there."""
    if isinstance(guidance, Prepared):
        return guidance
    parts = as_chain(guidance)
    runs = plan.make_runs(parts, grid, sampler.stages(grid))
    return Prepared(per_step(parts, path, sampler, grid), parts.constants(), runs)


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
    check_networks("cost", network, networks)
    check_sampler("cost", sampler)
    grid = paths.check_grid("cost", grid)
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
    guidance: Chain | Transform | Prepared | None = None,
    conds: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    key: Array | None = None,
    sample_keys: Array | None = None,
    batched: bool | int | None = None,
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
        grid: strictly decreasing noise times [N + 1] on the host, such as
            `uniform(50)`. Times at which the network's kind does not determine data or
            noise are refused.
        sampler: such as `euler()`.
        guidance: a transform or a `chain`; None for none.
        conds: named further conditions, such as `{"null": labels}`.
        networks: named further networks, such as `{"weak": Network(...)}`.
        key: shared by the batch, for transforms that draw (S2).
        sample_keys: one PRNG key per sample [B], for stochastic samplers; the function
            `sample_keys` makes them.
        batched: branches in one forward pass (True), one call each (False), or as many
            in one as have so many rows together; None chooses by the device that the
            program is compiled for. Branches that are live in different steps may get
            calls of their own, so that the program holds each once.
        progress: called on the host with the index of each finished step; part of
            the compiled program, so pass one function, not a new lambda per call.

    Returns:
        Samples [B, *D] at the grid's last time, in the dtype of `noise`. NaN in
        arrays (noise, conditions, weights) is data: it gives NaN samples, which the
        commands refuse and a program has to look for.

    Raises:
        InputError: for a bad grid, missing conditions, networks or keys, and arguments
            of the wrong kind, such as `sampler=euler` for `euler()`.
    """
    check_networks("generate", network, networks)
    check_arrays("generate", noise, conds, key, sample_keys, progress)
    grid = check("generate", network, grid, sampler, sample_keys)
    prepared = prepare(guidance, network.path, grid, sampler)
    fixed = Fixed(
        {"main": network, **(networks or {})},
        {"cond": cond, **(conds or {})},
        key,
        sample_keys,
        prepared.constants,
    )
    most = most_rows("generate", batched, (noise, fixed, prepared.steps))
    program = make_program(sampler, grid, most, progress)
    start, state = at_start(network.path, grid, noise), prepared.chain.init(noise)
    return solve(program, prepared.runs, fixed, prepared.steps, start, state)


def begun(
    network: Network, noise: Array, cond: Any, *, guidance: Prepared, **named: Any
) -> Carry:
    """Where `generate` begins, for `advanced`; arguments as there."""
    program, fixed = _parts(network, cond, guidance, **named)
    start, state = at_start(network.path, named["grid"], noise), guidance.chain
    return begin(program, fixed, guidance.steps, start, state.init(noise))


def advanced(
    network: Network,
    carry: Carry,
    cond: Any,
    span: Span,
    *,
    guidance: Prepared,
    **named: Any,
) -> Carry:
    """`carry` after the predictions from `span[0]` to `span[1]`, exclusive; in a `jit`.

    The numbers may be traced, so that one program does all of the way or any part of
    it, bitwise the same. Arguments as `generate`; nothing is checked.
    """
    program, fixed = _parts(network, cond, guidance, **named)
    return walk(program, guidance.runs, fixed, guidance.steps, carry, span)


def _parts(
    network: Network,
    cond: Any,
    guidance: Prepared,
    *,
    grid: np.ndarray,
    sampler: Sampler,
    conds: Mapping[str, Any],
    networks: Mapping[str, Network],
    key: Array,
    sample_keys: Array,
    batched: bool | int | None,
) -> tuple[Program, Fixed]:
    """What `begun` and `advanced` share."""
    named = {"main": network, **networks}, {"cond": cond, **conds}
    fixed = Fixed(*named, key, sample_keys, guidance.constants)
    most = most_rows("generate", batched, (fixed, guidance.steps))
    return make_program(sampler, grid, most), fixed


def check(
    name: str, network: Network, grid: Any, sampler: Sampler, sample_keys: Array | None
) -> np.ndarray:
    """`grid` as float64 [N + 1], if the network can be sampled along it.

    Raises:
        InputError: for a bad grid or missing keys; `name` is that of the function.
    """
    check_sampler(name, sampler)
    grid = paths.check_grid(name, grid)
    if sampler.stochastic and sample_keys is None:
        raise InputError(
            f"{name}: need sample_keys [B] for a stochastic sampler, got None. "
            "Pass sample_keys=jg.sample_keys(seed, jnp.arange(batch))."
        )
    stages = sampler.stages(grid) // sampler.repeats
    with np.errstate(all="ignore"):
        second = sampler.second_times(network.path, grid)[stages > 1]
    times = np.concatenate([grid[:-1], second])
    check_determined(name, network.kind, network.path, times)
    return grid


def at_start(path: Path, grid: np.ndarray, noise: Array) -> Array:
    """Unit noise [B, *D] scaled to the path's sigma at the grid's start."""
    return noise * jnp.asarray(float(path.node(grid[0]).sigma), noise.dtype)


def as_chain(guidance: Chain | Transform | None) -> Chain:
    """A chain of whatever the user gave."""
    parts = chain() if guidance is None else chain(guidance)
    return check_acts("guidance", parts)
