"""Adaptive ODE solvers through diffrax (SiT samples with dopri5).

The interval is cut into pieces at every edge of a guidance window. Across an edge the
vector field jumps: the error control would reject steps there until they are tiny, and
each rejected step costs evaluations. Inside a piece the field is smooth, and only the
branches that are live there are evaluated. The solver starts anew in every piece.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import (
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
from jaxguide.samplers._inputs import check_arrays, check_networks


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
        InputError: if `guidance` holds a transform that is not a function of (x, t):
            one that remembers earlier steps (SG-prev) or draws at random (S2, ICG).

    NFE: counted; Dopri5 takes 6 per step and 1 more per piece.
    Source: Dormand and Prince 1980; SiT's `sample_ode` with torchdiffeq's dopri5.
    Differs from the source: windows are exact; error control is per sample by default.
    """
    check_networks("integrate", network, networks)
    check_arrays("integrate", noise, conds)
    parts = as_chain(guidance)
    _check_memory(parts, noise)
    if not 0 <= t_min < t_max <= 1:
        raise InputError(
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
    everywhere = plan.Piece(t_max, t_min, (True,) * len(parts.parts))
    _check_draws(problem, everywhere, start, all_conds)
    if not per_sample:
        return _solve(problem, pieces, start, all_conds)

    # Mapped, not one solve for the batch: each sample then has its own step sizes. The
    # loop ends with the slowest sample, and `nfe` is what each one needed.
    def one(x: Array, conds: dict[str, Any]) -> Solution:
        conds = jax.tree.map(lambda leaf: leaf[None], conds)
        solution = _solve(problem, pieces, x[None], conds)
        return solution._replace(x=solution.x[0])

    return jax.vmap(one)(start, all_conds)


class _Problem(NamedTuple):
    networks: dict[str, Network]
    parts: Chain
    batched: bool
    solver: diffrax.AbstractERK
    controller: diffrax.PIDController
    max_steps: int


def _check_memory(parts: Chain, noise: Array) -> None:
    """Refuses transforms that look at the step before."""
    part: Any
    for part in parts.parts:
        if part.init(noise) != ():
            raise InputError(
                f"integrate: need transforms without memory, got {part.name}. An "
                "adaptive solver has trial and rejected steps, so 'the previous step' "
                "is not defined. Use generate with sampler=euler()."
            )


def _check_draws(
    problem: _Problem, piece: plan.Piece, x: Array, conds: dict[str, Any]
) -> None:
    """Refuses transforms that draw: those that need a key where there is none.

    A draw may be anywhere (a condition, dropped blocks, inside `apply`), so the field
    is traced instead, which evaluates nothing. What fails with a key as well has
    another reason, and fails again with its own message when the field is integrated.
    """

    def complaint(key: Array | None) -> str | None:
        try:
            jax.eval_shape(_field(problem, conds, piece, key), piece.start, x, None)
        except ValueError as error:
            return str(error)
        return None

    without = complaint(None)
    if without is not None and without != complaint(jax.random.key(0)):
        name = without.partition(":")[0]  # messages begin with the method's name
        raise InputError(
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
        solution = diffrax.diffeqsolve(
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
        assert solution.ys is not None  # SaveAt defaults to t1
        taken = solution.stats["num_steps"].astype(jnp.int32)
        x, steps = solution.ys[0], steps + taken
        each = plan.evaluations(problem.parts, problem.networks, piece.live)
        nfe = nfe + _calls(problem.solver, taken) * each
    return Solution(x, steps, nfe)


def _calls(solver: diffrax.AbstractERK, steps: Array) -> Array:
    """Calls of the vector field in one piece; a rejected step takes as many."""
    tableau: Any = solver.tableau
    if tableau.fsal:  # a step begins with the last stage of the one before
        return tableau.c.size * steps + 1
    return (tableau.c.size + 1) * steps


def _field(
    problem: _Problem,
    conds: dict[str, Any],
    piece: plan.Piece,
    key: Array | None = None,
):
    """The guided velocity as diffrax wants it, inside one piece.

    `key` is for `_check_draws` alone: a field that draws is not integrated.
    """
    main = problem.networks["main"]
    state = problem.parts.init(jnp.zeros(()))
    # Windows are judged here and not at the solver's own times: a stage that rounding
    # puts beyond the piece's edge still belongs to it.
    middle = (piece.start + piece.stop) / 2

    def velocity(t: Any, x: Any, args: Any) -> Array:
        del args
        node = main.path.node(jnp.asarray(t))
        step = Step(x, node, conds, jnp.zeros((), bool))
        chain = problem.parts.at(node.t, middle)
        pair, _ = evaluate(
            problem.networks, chain, state, step,
            live=piece.live, key=key, batched=problem.batched,
        )  # fmt: skip
        return paths.from_pair("velocity", pair.denoised, pair.noise, node)

    return velocity
