"""Many guidances of one structure in one program: scales, weights, windows swept.

`sweep` gives what a loop of `generate` over the guidances gives, and compiles once.
Every point runs exactly the branches that are live in its own steps, so a sweep costs
what the loop costs.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxguide.errors import InputError
from jaxguide.guidance import Chain, Network, Transform, _plan as plan
from jaxguide.guidance._batching import most_rows
from jaxguide.guidance._checks import shown
from jaxguide.paths import Array, Path
from jaxguide.samplers import (
    _generation as generation,
    _solver as solver,
    _turns as turns,
)
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._inputs import check_arrays, check_networks


@dataclasses.dataclass(frozen=True)
class Points:
    """Guidances of one structure as numbers, ready to be mapped over. A pytree.

    `points[2:3]` is the third alone; every slice of one length runs the same program.
    """

    # Leaves [E, ...], one entry per guided prediction; those of the chain [P, E, ...].
    steps: Any
    which: Array  # int32 [P, E]: the mode of every prediction
    # Live parts that occur at any point: static, they decide the program. Which of
    # them a step has is a number, so other windows do not recompile.
    modes: tuple[Any, ...]
    constants: Chain  # the same at all points, see `Chain.constants`; kept once

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, where: slice) -> "Points":
        chain = jax.tree.map(lambda leaf: leaf[where], self.chain)
        return dataclasses.replace(self.with_chain(chain), which=self.which[where])

    @property
    def chain(self) -> Chain:
        """What differs from point to point, besides the modes."""
        return self.steps.chain

    def with_chain(self, chain: Chain) -> "Points":
        """The same steps with other numbers."""
        return dataclasses.replace(self, steps=self.steps._replace(chain=chain))


jax.tree_util.register_dataclass(
    Points, data_fields=["steps", "which", "constants"], meta_fields=["modes"]
)


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are known to be equal."""
    if one is other or solver.traced((one, other)):
        return one is other
    return np.array_equal(one, other)


def structure(guidance: Chain | Transform | None) -> Any:
    """What must be equal in all guidances of a sweep; hashable.

    Scales, weights and windows are no part of it, nor is where a number is neutral.
    """
    time = np.ones(1)
    numbers = generation.as_chain(guidance).without_shapes().on_grid(time, time)
    leaves, tree = jax.tree.flatten(numbers)
    return tree, tuple(np.shape(leaf) for leaf in leaves)


def make_points(
    guidances: Sequence[Chain | Transform | None],
    *,
    path: Path,
    grid: Any,
    sampler: Sampler,
) -> Points:
    """The numbers of all guidances at every step of `grid` [N + 1].

    Args:
        guidances: at least one; equal up to scales, weights and windows.
        path: of the main network.
        grid: strictly decreasing noise times on the host.
        sampler: such as `euler()`.

    Raises:
        InputError: if there are none, or two differ in structure.
    """
    if not isinstance(guidances, Sequence) or isinstance(guidances, str):
        raise InputError(
            f"sweep: need a list of guidances, got guidances={shown(guidances)}. "
            "Pass guidances=[cfg(1.5), cfg(3.0)]."
        )
    chains = [generation.as_chain(guidance) for guidance in guidances]
    if not chains:
        raise InputError("sweep: need at least one guidance, got guidances=[].")
    wanted = structure(chains[0])
    for index, parts in enumerate(chains):
        if structure(parts) != wanted:
            raise InputError(
                "sweep: need guidances that differ in scales, weights and windows "
                f"only, got guidances[{index}] of another structure than "
                "guidances[0]. Sweep the two apart."
            )
    constants = [parts.constants() for parts in chains]
    leaves = [jax.tree.leaves(each) for each in constants]
    if not all(all(map(_same, each, leaves[0])) for each in leaves):
        raise InputError(
            "sweep: need guidances that share what is no number (coefficients, weights "
            "of an energy), got different arrays. Pass the same ones, or sweep apart."
        )
    stages = sampler.stages(grid)
    runs = [plan.make_runs(parts, grid, stages) for parts in chains]
    modes = plan.all_modes(run for each in runs for run in each)
    steps = [solver.per_step(parts, path, sampler, grid) for parts in chains]
    stacked = [each.chain for each in steps]
    which = np.stack([plan.mode_indices(each, modes) for each in runs])
    points = Points(steps[0], jnp.asarray(which), modes, constants[0])
    return points.with_chain(jax.tree.map(lambda *leaf: jnp.stack(leaf), *stacked))


def sweep(
    network: Network,
    noise: Array,
    cond: Any,
    *,
    guidances: Sequence[Chain | Transform | None] | Points,
    grid: Any,
    sampler: Sampler,
    conds: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    key: Array | None = None,
    sample_keys: Array | None = None,
    batched: bool | int | None = None,
    vmapped: bool = False,
    progress: Callable[[Array], None] | None = None,
) -> Array:
    """`generate` for every guidance of a list, in one program; the same noise for all.

        sweep(..., guidances=[g_0, g_1, ...])[p] = generate(..., guidance=g_p)

    Compiles once however many guidances there are, and not again for another list of
    the same length, structure and live steps.

    Args:
        guidances: chains that differ in scales, weights and windows only; or what
            `make_points` made of them for the same grid and sampler.
        vmapped: run all points side by side: faster on an accelerator with memory to
            spare, but a step then evaluates what any point needs there, for all.
        network, noise, cond, grid, sampler: as in `generate`.
        conds, networks, key, sample_keys, batched, progress: as in `generate`.

    Returns:
        Samples [P, B, *D], one batch per guidance, in the dtype of `noise`.

    Raises:
        InputError: if the guidances differ in structure, or as `generate`.
    """
    check_networks("sweep", network, networks)
    check_arrays("sweep", noise, conds, key, sample_keys, progress)
    grid = generation.check("sweep", network, grid, sampler, sample_keys)
    points = guidances
    if not isinstance(points, Points):
        points = make_points(points, path=network.path, grid=grid, sampler=sampler)
    fixed = turns.Fixed(
        {"main": network, **(networks or {})},
        {"cond": cond, **(conds or {})},
        key,
        sample_keys,
    )
    most = most_rows("sweep", batched, (noise, fixed, points))
    program = solver.make_program(sampler, grid, most, progress)
    start = generation.at_start(network.path, grid, noise)
    solve = _solve if solver.traced((fixed, points, noise)) else _solve_jit
    return solve(program, vmapped, fixed, points, start)


def _solve(
    program: turns.Program,
    vmapped: bool,
    fixed: turns.Fixed,
    points: Points,
    x: Array,
) -> Array:
    """Marches every point through all its steps.

    One scan over all steps, not one per run as in `generate`: the points have windows
    of their own, so that their runs do not begin and end together.
    """
    kept = fixed._replace(constants=points.constants)
    parts = points.chain.with_constants(points.constants)
    # Under `vmap` the points of a step differ in `which`, and XLA evaluates the program
    # of every mode and selects: one that they share is then cheaper.
    bits = vmapped or plan.share_program(
        parts, fixed.networks, points.modes, most=program.most_rows, rows=len(x)
    )
    scan = plan.Scan(0, points.which.shape[1], points.modes, bits)

    def one(each: tuple[Chain, Array]) -> Array:
        chain, which = each
        steps = points.with_chain(chain).steps
        whole = chain.with_constants(points.constants)
        carry = solver.begin(program, kept, steps, x, whole.init(x))
        return solver.march(program, scan, kept, steps, which, carry).x

    over = points.chain, points.which
    return jax.vmap(one)(over) if vmapped else lax.map(one, over)


_solve_jit = jax.jit(_solve, static_argnames=("program", "vmapped"))
