"""One guided prediction, and what the sampler makes of it: a turn of the loop."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxguide.guidance import Chain, Network, Pair, Step, evaluate
from jaxguide.guidance._live import Live
from jaxguide.paths import Array, Node
from jaxguide.samplers._base import Sampler

# Folded into a step's key for the noise of its second stage; 1, 2, ... are repeats.
_SECOND = 0x40000000


class Steps(NamedTuple):
    """Everything that changes from one guided prediction to the next; leaves [E, ...].

    A step takes one, or two with a corrector, times the sampler's repeats.
    """

    number: Any  # int32, of the step: 0, 1, ...
    turn: Any  # int32, of the repeats
    second: Any  # bool, whether it is the corrector's
    last: Any  # bool, whether it ends the step
    node: Node
    chain: Chain
    next_node: Node  # the step's end
    coefficients: Any


@dataclasses.dataclass(frozen=True)
class Program:
    """What stays the same while sampling and is no array. Static: equal ones share a
    compiled program."""

    sampler: Sampler
    two_stages: bool  # whether any step has a corrector
    most_rows: int | None  # in one forward pass, see `by_platform`
    progress: Callable[[Array], None] | None = None


class Fixed(NamedTuple):
    """The arrays that stay the same while sampling."""

    networks: dict[str, Network]
    conds: dict[str, Any]
    guidance_key: Array | None
    sample_keys: Array | None
    constants: Chain | None = None  # see `Chain.constants`


class Carry(NamedTuple):
    """What a prediction leaves for the next one; () what is not needed."""

    x: Array
    state: Any  # the chain's
    memory: Any  # the sampler's
    begin: Any = ()  # of two stages: x of the first one, with the noise churned in
    first: Any = ()  # of two stages: its pair
    start: Any = ()  # of repeats: (state, memory) before the step


def take_turn(
    program: Program,
    live: tuple[Live, ...],
    fixed: Fixed,
    carry: Carry,
    at: Steps,
) -> Carry:
    """One guided prediction, and what the sampler makes of it."""
    sampler, fresh = program.sampler, None
    if sampler.stochastic:
        # The second stage gets the draw of the first, and another one.
        fresh = _fresh(fixed.sample_keys, at.number, carry.x, 2 * _repeat(program, at))

    def first(carry: Carry) -> Carry:
        return _prepared(program, fixed, carry, at, fresh)

    carry = _at_second(program, at, lambda carry: carry, first, carry)
    pair, state = predict(program, live, fixed, carry, at)

    def moved(carry: Carry) -> Carry:
        c, memory = at.coefficients, carry.memory
        x, memory = sampler.step(carry.x, memory, pair, c, fresh)
        done = carry._replace(x=x.astype(carry.x.dtype), state=state, memory=memory)
        if not program.two_stages:
            return done
        return done._replace(begin=carry.x, first=pair)

    def corrected(carry: Carry) -> Carry:
        # The state that the prediction returned is dropped: a transform's memory is one
        # entry per step, at the steps' starts, whichever sampler runs. The second stage
        # reads the first one's memory, and draws what the first one drew: the same key.
        both = None
        if fresh is not None:
            draw = _SECOND + _repeat(program, at)
            both = fresh, _fresh(fixed.sample_keys, at.number, carry.x, draw)
        x = sampler.correct(carry.begin, carry.first, pair, at.coefficients, both)
        return carry._replace(x=x.astype(carry.x.dtype))

    return _at_second(program, at, corrected, moved, carry)


def _at_second(
    program: Program,
    at: Steps,
    second: Callable[[Carry], Carry],
    first: Callable[[Carry], Carry],
    carry: Carry,
) -> Carry:
    """What the two stages do differently; the network is in neither."""
    if not program.two_stages:
        return first(carry)
    return lax.cond(at.second, second, first, carry)


def _prepared(
    program: Program, fixed: Fixed, carry: Carry, at: Steps, fresh: Array | None
) -> Carry:
    """The carry at whose x the first stage is evaluated.

    A step that is repeated starts every time from the memory of the step before; the
    last one's is kept. Otherwise a transform that looks at the previous step would see
    the same step's first try.
    """
    sampler, c = program.sampler, at.coefficients

    def again(carry: Carry) -> Carry:
        noise = _fresh(fixed.sample_keys, at.number, carry.x, 2 * at.turn - 1)
        x = sampler.renoise(carry.x, c, noise).astype(carry.x.dtype)
        state, memory = carry.start
        return carry._replace(x=x, state=state, memory=memory)

    def once(carry: Carry) -> Carry:
        return carry._replace(start=(carry.state, carry.memory))

    if sampler.repeats > 1:
        carry = lax.cond(at.turn > 0, again, once, carry)
    if fresh is not None:
        carry = carry._replace(x=sampler.churn(carry.x, c, fresh).astype(carry.x.dtype))
    return carry


def predict(
    program: Program,
    live: tuple[Live, ...],
    fixed: Fixed,
    carry: Carry,
    at: Steps,
) -> tuple[Pair, Any]:
    """The guided pair at x, and the chain's next state."""
    restart = at.number == 0
    if program.two_stages:
        restart = restart & ~at.second
    step = Step(carry.x, at.node, fixed.conds, restart, at.number, at.next_node)
    key = _turn_key(fixed.guidance_key, at.number, _repeat(program, at))
    return evaluate(
        fixed.networks, at.chain, carry.state, step,
        live=live, key=key, most=program.most_rows,
    )  # fmt: skip


def _repeat(program: Program, at: Steps) -> int | Array:
    """Which of its repeats a step is in: 0 on the host where it has one."""
    return at.turn if program.sampler.repeats > 1 else 0


def report(program: Program, at: Steps) -> None:
    """Calls `progress` at the end of a step."""
    progress = program.progress
    if progress is None:
        return

    def tell() -> None:
        jax.debug.callback(progress, at.number)

    if program.two_stages or program.sampler.repeats > 1:
        lax.cond(at.last, tell, lambda: None)
    else:
        tell()


def _turn_key(key: Array | None, index: Array, turn: int | Array) -> Array | None:
    """The key that transforms draw from; turn 0 is the step without recurrence.

    Folded by number, not split off one after the other: the draws of a step do not
    depend on how many steps came before it or how they were cut into scans.
    """
    return None if key is None else _folded(jax.random.fold_in(key, index), turn)


def _folded(key: Array, count: int | Array) -> Array:
    """The key of a draw that is counted from 0, for which it is `key` itself."""
    if isinstance(count, int):
        return jax.random.fold_in(key, count) if count else key
    return jnp.where(count > 0, jax.random.fold_in(key, count), key)


def _fresh(keys: Array | None, index: Array, x: Array, draw: int | Array) -> Array:
    """This step's noise [B, *D], from each sample's own key; `draw` counts.

    A sample's noise is then the same in every batch and on any number of devices.
    """

    def one(key: Array) -> Array:
        key = _folded(jax.random.fold_in(key, index), draw)
        return jax.random.normal(key, x.shape[1:], x.dtype)

    assert keys is not None  # `generate` has refused a stochastic sampler without
    return jax.vmap(one)(keys)
