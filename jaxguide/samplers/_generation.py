"""`generate`: from noise to data, guided; and what it will cost."""

from collections.abc import Callable, Mapping
from typing import Any

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
from jaxguide.samplers._solver import make_program, per_step, solve
from jaxguide.samplers._turns import Fixed


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
    guidance: Chain | Transform | None = None,
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
    parts = as_chain(guidance)
    runs = plan.make_runs(parts, grid, sampler.stages(grid))
    fixed = Fixed(
        {"main": network, **(networks or {})},
        {"cond": cond, **(conds or {})},
        key,
        sample_keys,
        parts.constants(),
    )
    steps = per_step(parts, network.path, sampler, grid)
    most = most_rows("generate", batched, (noise, fixed, steps))
    program = make_program(sampler, grid, most, progress)
    start = at_start(network.path, grid, noise)
    return solve(program, runs, fixed, steps, start, parts.init(noise))


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
