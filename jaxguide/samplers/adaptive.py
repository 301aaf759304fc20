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
import numpy as np
from jax import lax

from jaxguide import paths
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.guidance import (
    Chain,
    Network,
    Step,
    Transform,
    _plan as plan,
    guided_prediction,
)
from jaxguide.guidance._base import Guided
from jaxguide.guidance._batching import most_rows
from jaxguide.guidance._evaluate import as_pair
from jaxguide.guidance._live import Live, by_mode
from jaxguide.paths import Array, as_number, is_integer
from jaxguide.samplers._checks import check_determined, check_tolerances
from jaxguide.samplers._generation import as_chain
from jaxguide.samplers._inputs import check_arrays, check_networks
from jaxguide.samplers._solver import traced


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
    batched: bool | int | None = None,
    max_steps: int = 4096,
) -> Solution:
    """Solves the guided probability-flow ODE from `t_max` to `t_min` adaptively.

    Args:
        network, noise, cond, guidance, conds, networks, batched: as `generate`.
        solver: an explicit Runge-Kutta solver of diffrax; `Dopri5()` if None.
        rtol, atol: tolerances of the error control (SiT: 1e-3 and 1e-6), finite and
            not negative, one of them above 0.
        t_max, t_min: noise times; inside (0, 1) where the network's kind gives no
            velocity (`noise` at t = 1 of the linear path, or at t = 0 of `VP`).
        per_sample: control the error of each sample by itself, so that a sample does
            not depend on its batch; False uses one step for all, as SiT does.
        max_steps: >= 1, per piece of the interval; more is an error.

    Returns:
        A `Solution`. Its NFE is counted, not promised: it depends on the tolerances.

    Raises:
        InputError: if `guidance` holds a transform that is not a function of (x, t):
            one that remembers earlier steps (SG-prev) or draws at random (S2, ICG);
            for numbers out of range; at ends where the kind has no velocity.
        NonFiniteError: if the end is not reached in `max_steps`, or the velocity is
            not finite. Inside a caller's `jit` diffrax raises its own error.

    NFE: counted; Dopri5 takes 6 per step and 1 more per piece.
    Source: Dormand and Prince 1980; SiT's `sample_ode` with torchdiffeq's dopri5.
    Differs from the source: windows are exact; error control is per sample by default.
    """
    check_networks("integrate", network, networks)
    check_arrays("integrate", noise, conds)
    parts = as_chain(guidance)
    _check_memory(parts, noise)
    check_tolerances("integrate", rtol, atol)
    _check_interval(t_max, t_min, max_steps)
    _check_ends(network, t_max, t_min)
    arrays = noise, network, networks, cond, conds, parts
    most = most_rows("integrate", batched, arrays)
    if per_sample and most is not None:  # mapped over samples: a row stands for all
        most //= max(1, len(noise))
    problem = _Problem(
        {"main": network, **(networks or {})},
        parts,
        most,
        diffrax.Dopri5() if solver is None else solver,
        diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps,
        # Inside a caller's program diffrax itself has to say what went wrong.
        throw=traced((noise, cond, conds, networks, network)),
    )
    pieces = plan.make_pieces(parts, t_max, t_min)
    start = noise * jnp.asarray(float(network.path.node(t_max).sigma), noise.dtype)
    all_conds = {"cond": cond, **(conds or {})}
    _check_draws(problem, t_max, start, all_conds)
    if not per_sample:
        return _checked(problem, *_solve(problem, pieces, start, all_conds))

    # Mapped, not one solve for the batch: each sample then has its own step sizes. The
    # loop ends with the slowest sample, and `nfe` is what each one needed.
    def one(x: Array, conds: dict[str, Any]) -> tuple[Solution, Array]:
        conds = jax.tree.map(lambda leaf: leaf[None], conds)
        solution, ended = _solve(problem, pieces, x[None], conds)
        return solution._replace(x=solution.x[0]), ended

    return _checked(problem, *jax.vmap(one)(start, all_conds))


class _Problem(NamedTuple):
    networks: dict[str, Network]
    parts: Chain
    most: int | None
    solver: diffrax.AbstractERK
    controller: diffrax.PIDController
    max_steps: int
    throw: bool


def _check_interval(t_max: float, t_min: float, max_steps: int) -> None:
    """Raises InputError unless there are noise times to solve between, and steps."""
    if not 0 <= as_number(t_min) < as_number(t_max) <= 1:
        raise InputError(
            f"integrate: need 0 <= t_min < t_max <= 1, got t_min={t_min!r}, "
            f"t_max={t_max!r}."
        )
    if not is_integer(max_steps) or max_steps < 1:
        raise InputError(
            "integrate: need an integer max_steps >= 1, got "
            f"max_steps={max_steps!r}. 4096 is the default."
        )


def _check_ends(network: Network, t_max: float, t_min: float) -> None:
    """Refuses ends of the interval where the network's kind gives no velocity."""
    kind, path = network.kind, network.path
    if kind == "velocity":  # is the slope itself, whatever the path
        return
    check_determined("integrate", kind, path, np.array([t_max, t_min]))
    with np.errstate(all="ignore"):
        slope = float(path.node(np.float64(t_min)).dsigma)
    if not abs(slope) < 1e30:  # floored, so never infinite here
        raise InputError(
            f"integrate: need t_min > 0 for a {kind} network on {path!r}, whose noise "
            f"has no finite slope there, got t_min={t_min!r}. SiT ends at 1e-3."
        )


def _checked(problem: _Problem, solution: Solution, ended: Array) -> Solution:
    """The solution, if every sample reached the end of the interval.

    Raises:
        NonFiniteError: if the error control gave up, and this is no caller's program.
    """
    if problem.throw or bool(jnp.all(ended)):
        return solution
    raise NonFiniteError(
        f"integrate: need a velocity that {problem.max_steps} steps can follow, got no "
        f"end for {int(jnp.size(ended) - jnp.sum(ended))} of {jnp.size(ended)} "
        "integrations. Loosen rtol and atol, raise max_steps, or keep t_max and t_min "
        "away from where guidance or the network is infinite."
    )


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


def _check_draws(problem: _Problem, t: float, x: Array, conds: dict[str, Any]) -> None:
    """Refuses transforms that draw: those that need a key where there is none.

    A draw may be anywhere (a condition, dropped blocks, inside `apply`), so the field
    is traced instead, which evaluates nothing. What fails with a key as well has
    another reason, and fails again with its own message when the field is integrated.
    """

    live = (True,) * len(problem.parts.parts)

    def complaint(key: Array | None) -> str | None:
        try:
            field = _field(problem, conds, (live,), 0, False, t / 2, key)
            jax.eval_shape(field, t, x, None)
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
) -> tuple[Solution, Array]:
    """Integrates over every piece in turn; and whether every one was finished."""
    modes = plan.all_modes(pieces)
    shared = _shared(problem, modes, x, conds)
    ends = np.asarray([(one.start, one.stop) for one in pieces])
    first = np.maximum(ends[:, 1] - ends[:, 0], -0.01)
    nfe = [plan.evaluations(problem.parts, problem.networks, one) for one in modes]

    def piece(carry: tuple[Array, Array, Array, Array], each: tuple[Any, ...]):
        x, steps, calls, ended = carry
        start, stop, step, which = each
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(
                _field(problem, conds, modes, which, shared, (start + stop) / 2)
            ),
            problem.solver,
            t0=start,
            t1=stop,
            dt0=step,  # given, because choosing it would cost evaluations
            y0=x,
            stepsize_controller=problem.controller,
            max_steps=problem.max_steps,
            throw=problem.throw,
        )
        assert solution.ys is not None  # SaveAt defaults to t1
        taken = solution.stats["num_steps"].astype(jnp.int32)
        calls = calls + _calls(problem.solver, taken) * jnp.asarray(nfe)[which]
        ended = ended & (solution.result == diffrax.RESULTS.successful)
        return (solution.ys[0], steps + taken, calls, ended), None

    zero, which = jnp.zeros((), jnp.int32), [modes.index(one.live) for one in pieces]
    carry = x, zero, zero, jnp.ones((), bool)
    if len(pieces) == 1:
        carry, _ = piece(carry, (*ends[0].tolist(), float(first[0]), 0))
    else:  # one loop: the solver, and each branch, are in the program once
        each = *ends.T, first, np.asarray(which)
        carry, _ = lax.scan(piece, carry, jax.tree.map(jnp.asarray, each))
    x, steps, calls, ended = carry
    return Solution(x, steps, calls), ended


def _shared(
    problem: _Problem, modes: tuple[Any, ...], x: Array, conds: dict[str, Any]
) -> bool:
    """Whether the pieces share a program in which live parts are bits.

    Not with a transform that sets a noise: in such a program it would be set in all
    pieces, and its velocity need not exist at t = 0.
    """
    if not plan.share_program(
        problem.parts, problem.networks, modes, most=problem.most, rows=len(x)
    ):
        return False
    guided = jax.eval_shape(
        lambda: _guided(problem, conds, (True,) * len(problem.parts.parts), 0.5, x)[0]
    )
    return guided.noise is None


def _calls(solver: diffrax.AbstractERK, steps: Array) -> Array:
    """Calls of the vector field in one piece; a rejected step takes as many."""
    tableau: Any = solver.tableau
    if tableau.fsal:  # a step begins with the last stage of the one before
        return tableau.c.size * steps + 1
    return (tableau.c.size + 1) * steps


def _guided(
    problem: _Problem,
    conds: dict[str, Any],
    live: tuple[Live, ...],
    t: Any,
    x: Array,
    middle: Any = None,
    key: Array | None = None,
) -> tuple[Guided, Step]:
    """The guided prediction at (x, t), whose windows are judged at `middle`."""
    node = problem.networks["main"].path.node(jnp.asarray(t))
    step = Step(x, node, conds, jnp.zeros((), bool))
    guided, _, _ = guided_prediction(
        problem.networks,
        problem.parts.at(node.t, middle),
        problem.parts.init(jnp.zeros(())),
        step,
        live=live,
        key=key,
        most=problem.most,
    )
    return guided, step


def _field(
    problem: _Problem,
    conds: dict[str, Any],
    modes: tuple[tuple[bool, ...], ...],
    which: Any,
    shared: bool,
    middle: Any,
    key: Array | None = None,
):
    """The guided velocity as diffrax wants it, inside one piece.

    Windows are judged at the piece's `middle` and not at the solver's own times: a
    stage that rounding puts beyond the piece's edge still belongs to it. `key` is for
    `_check_draws` alone: a field that draws is not integrated.
    """
    main = problem.networks["main"]

    def velocity(t: Any, x: Any, args: Any) -> Array:
        del args

        def run(live: tuple[Live, ...]) -> Array:
            guided, step = _guided(problem, conds, live, t, x, middle, key)
            if guided.noise is None:  # a velocity then passes as it is, also at t = 0
                prediction = guided.prediction
                return paths.convert(prediction, x, step.node, main.kind, "velocity")
            pair = as_pair(main.kind, guided, step)
            return paths.from_pair("velocity", pair.denoised, pair.noise, step.node)

        return by_mode(modes, which, run, shared=shared)

    return velocity
