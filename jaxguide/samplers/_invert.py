"""From data back to the noise that a sampler would make it from."""

from collections.abc import Mapping
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
)
from jaxguide.guidance._batching import most_rows
from jaxguide.paths import Array
from jaxguide.samplers import (
    _generation as generation,
    _solver as solver,
    _turns as turns,
)
from jaxguide.samplers._base import Sampler
from jaxguide.samplers._checks import check_determined
from jaxguide.samplers._inputs import (
    check_arrays,
    check_networks,
    check_sampler,
)
from jaxguide.samplers._single import SingleStep


def invert(
    network: Network,
    x0: Array,
    cond: Any,
    *,
    grid: Any,
    sampler: Sampler,
    guidance: Chain | Transform | None = None,
    conds: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    key: Array | None = None,
    batched: bool | int | None = None,
) -> Array:
    """Walks the sampler's ODE from data to noise, so that `generate` leads back.

        x_t = alpha_t denoised(x_s) + sigma_t noise(x_s),   s < t        (DDIM)

    Each step takes the prediction at its cleaner end where sampling takes it at the
    noisier one, so the way back ends near `x0`, at a distance of order 1 / N.
    Invert with the guidance that samples, but `cfgpp(scale)` with
    `cfgpp(scale, inverse=True)`.
    That distance falls with N only if the scale falls as 1 / N too: a fixed one guides
    in proportion to N.

    Args:
        network: as in `generate`. Noise networks may start at t = 0, and velocity ones
            on `paths.Linear`, `GVP` and `EDM`. The output of other networks does not
            determine the noise there; end the grid at 1e-3, say.
        x0: data [B, *D], or the state at the grid's cleanest time.
        cond: its condition, a pytree with leaves [B, ...], or None.
        grid: the strictly decreasing noise times [N + 1] that `generate` walks; read
            backwards here.
        sampler: `euler()` or `ddim()`. `euler` steps along the time derivative, which
            `paths.VP` and `paths.DDPM` do not have at t = 0: use `ddim` there.
        guidance, conds, networks, key, batched: as in `generate`. Schedules and windows
            are read at the noisier end of a step, as in sampling.

    Returns:
        Unit noise [B, *D] to start `generate` from, in the dtype of `x0`.

    Raises:
        InputError: for a sampler that draws, remembers or takes two stages; a bad grid;
            a network that cannot start there.

    NFE: 1 per step and what the guidance adds.
    Source: Song et al. 2020, DDIM, arXiv:2010.02502, Sec. 4.3; with CFG++: Chung et al.
        2024, arXiv:2406.08070, Algorithm 2.
    Differs from the source: the result is divided by the path's sigma at the noisy end.
    """
    check_networks("invert", network, networks)
    check_sampler("invert", sampler)
    check_arrays("invert", x0, conds, key)
    _check(sampler)
    backwards = paths.check_grid("invert", grid)
    grid, last = backwards[::-1], network.path.node(backwards[0])
    check_determined("invert", network.kind, network.path, grid[:-1], inverse=True)
    parts = generation.as_chain(guidance)
    stop = grid[1:]  # the noisier ends, where sampling reads its schedules
    runs = plan.make_runs(parts, np.append(stop, stop[-1]), sampler.stages(grid))
    steps = solver.per_step(parts, network.path, sampler, grid)
    numbers = parts.on_grid(stop, stop)
    fixed = turns.Fixed(
        {"main": network, **(networks or {})},
        {"cond": cond, **(conds or {})},
        key,
        None,
        parts.constants(),
    )
    steps = steps._replace(chain=numbers)
    most = most_rows("invert", batched, (x0, fixed, steps))
    program = solver.make_program(sampler, grid, most)
    noise = solver.solve(program, runs, fixed, steps, x0, parts.init(x0))
    return noise / jnp.asarray(float(last.sigma), noise.dtype)


def _check(sampler: Sampler) -> None:
    """Refuses what has no inverse of one evaluation per step."""
    if not isinstance(sampler, SingleStep) or sampler.stochastic:
        raise InputError(
            "invert: need a deterministic sampler of one stage and no memory, got "
            f"sampler={sampler!r}. Use ddim() or euler()."
        )
