"""Adaptive ODE solvers through diffrax (SiT samples with dopri5).

The interval is cut at every edge of a guidance window, so that the vector field is
smooth inside each piece and branches that are dead there are not evaluated.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.guidance import (
    RAW,
    Chain,
    Network,
    Step,
    Transform,
    _plan as plan,
    default_batched,
    evaluate,
)
from jaxguide.paths import Array
from jaxguide.samplers._generation import as_chain


class Solution(NamedTuple):
    """The end of an adaptive integration."""

    x: Array  # [B, *D] at t_min
    steps: Array  # int [B] or []: solver steps, rejected ones included
    nfe: Array  # int, like `steps`: network evaluations


def integrate(
    network: Network,
    noise: Array,
    cond: Any,
    *,
    guidance: Chain | Transform | None = None,
    conds: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    solver: diffrax.AbstractERK | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    t_max: float = 1.0,
    t_min: float = 0.0,
    per_sample: bool = True,
    batched: bool | None = None,
    max_steps: int = 4096,
) -> Solution:
    """Solves the guided probability-flow ODE from `t_max` to `t_min` adaptively.

    Args:
        network, noise, cond, guidance, conds, networks, batched: as `generate`.
        solver: an explicit Runge-Kutta solver of diffrax; `Dopri5()` if None.
        rtol, atol: tolerances of the error control (SiT: 1e-3 and 1e-6).
        t_max, t_min: noise times; keep inside (0, 1) where the network's kind makes
            the velocity singular (`noise` at t = 1 of the linear path, say).
        per_sample: control the error of each sample by itself, so that a sample does
            not depend on its batch; False uses one step for all, as SiT does.
        max_steps: per piece of the interval; more is an error.

    Returns:
        A `Solution`. Its NFE is counted, not promised: it depends on the tolerances.

    Raises:
        ValueError: if `guidance` holds a transform that is not a function of (x, t):
            one that remembers earlier steps (SG-prev) or draws at random (S2).

    NFE: counted; Dopri5 takes 6 per step and 1 more per piece.
    Source: Dormand and Prince 1980; SiT's `sample_ode` with torchdiffeq's dopri5.
    Differs from the source: windows are exact; error control is per sample by default.
    """
    parts = as_chain(guidance)
    _check(parts, network, noise)
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(
            f"integrate: need 0 <= t_min < t_max <= 1, got t_min={t_min!r}, "
            f"t_max={t_max!r}."
        )
    problem = _Problem(
        {"main": network, **(networks or {})},
        parts,
        default_batched() if batched is None else batched,
        diffrax.Dopri5() if solver is None else solver,
        diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps,
    )
    pieces = plan.make_pieces(parts, t_max, t_min)
    start = noise * jnp.asarray(float(network.path.node(t_max).sigma), noise.dtype)
    all_conds = {"cond": cond, **(conds or {})}
    if not per_sample:
        return _solve(problem, pieces, start, all_conds)

    def one(x: Array, conds: dict[str, Any]) -> Solution:
        conds = jax.tree.map(lambda leaf: leaf[None], conds)
        found = _solve(problem, pieces, x[None], conds)
        return found._replace(x=found.x[0])

    return jax.vmap(one)(start, all_conds)


class _Problem(NamedTuple):
    networks: dict[str, Network]
    parts: Chain
    batched: bool
    solver: diffrax.AbstractERK
    controller: diffrax.PIDController
    max_steps: int


def _check(parts: Chain, network: Network, noise: Array) -> None:
    """Refuses transforms for which an adaptive step has no meaning."""
    for part in parts.parts:
        name = getattr(part, "name", type(part).__name__)
        if part.init(noise) != ():
            raise ValueError(
                f"integrate: need transforms without memory, got {name}. An adaptive "
                "solver has trial and rejected steps, so 'the previous step' is not "
                "defined. Use generate with sampler=euler()."
            )
        taps = [branch.tap for branch in part.branches(network)]
        if any(tap is not None and tap.random for tap in taps):
            raise ValueError(
                f"integrate: need deterministic transforms, got {name}. A fresh draw "
                "at every call is no vector field and defeats the error control. "
                "Use generate with sampler=euler()."
            )


def _solve(
    problem: _Problem, pieces: list[plan.Piece], x: Array, conds: dict[str, Any]
) -> Solution:
    """Integrates over every piece in turn."""
    steps = nfe = jnp.zeros((), jnp.int32)
    for piece in pieces:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(_field(problem, conds, piece)),
            problem.solver,
            t0=piece.start,
            t1=piece.stop,
            # Given, because choosing it would cost evaluations.
            dt0=max(piece.stop - piece.start, -0.01),
            y0=x,
            stepsize_controller=problem.controller,
            max_steps=problem.max_steps,
        )
        assert found.ys is not None  # SaveAt defaults to t1
        main = problem.networks["main"]
        branches = dict.fromkeys((RAW, *problem.parts.branches(main, piece.live)))
        taken = found.stats["num_steps"].astype(jnp.int32)
        x, steps = found.ys[0], steps + taken
        nfe = nfe + _evaluations(problem.solver, taken) * len(branches)
    return Solution(x, steps, nfe)


def _evaluations(solver: diffrax.AbstractERK, steps: Array) -> Array:
    """Calls of the vector field in one piece."""
    tableau: Any = solver.tableau
    if tableau.fsal:  # a step begins with the last stage of the one before
        return tableau.c.size * steps + 1
    return (tableau.c.size + 1) * steps


def _field(problem: _Problem, conds: dict[str, Any], piece: plan.Piece):
    """The guided velocity as diffrax wants it, inside one piece."""
    main = problem.networks["main"]
    state = problem.parts.init(jnp.zeros(()))
    middle = (piece.start + piece.stop) / 2

    def velocity(t: Array, x: Array, args: Any) -> Array:
        del args
        node = main.path.node(jnp.asarray(t))
        step = Step(x, node, conds, jnp.zeros((), bool))
        chain = problem.parts.at(node.t, middle)
        options = {"live": piece.live, "batched": problem.batched}
        pair, _ = evaluate(problem.networks, chain, state, step, **options)
        return paths.from_pair("velocity", pair.denoised, pair.noise, node)

    return velocity
