"""The evaluator: every declared branch of a chain, evaluated once.

Two ways that agree to float32 tolerance: one call per branch, or all branches of one
network that change only its inputs in one forward pass on a larger batch. Branches that
change the inside of the network (dropped blocks) are always calls of their own, so that
the work they leave out is really saved.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._base import (
    RAW,
    Evaluated,
    Guided,
    OwnedBranch,
    Step,
    View,
    find_condition,
    find_network,
)
from jaxguide.guidance._batching import by_platform, groups
from jaxguide.guidance._chain import Chain
from jaxguide.guidance._checks import shown
from jaxguide.guidance._devices import devices_of_branches, on_devices, shares
from jaxguide.guidance._live import Live, needed, where_needed
from jaxguide.guidance._network import Network
from jaxguide.guidance._step_checks import check_numbers, check_rows, check_state
from jaxguide.paths import Array, Node

# One of them has to be True for a branch to be called; () calls it in any case.
Bits = tuple[Array, ...]


class Pair(NamedTuple):
    """What a sampler gets: the guided prediction as clean data and noise.

    Linear methods leave them consistent, `x = alpha denoised + sigma noise`; a method
    coupled to the sampler hands a `noise` of its own.
    """

    denoised: Array  # [B, *D]
    noise: Array  # [B, *D]
    extra: Any = None  # second output of the main network's raw call, if it has one


class Call(NamedTuple):
    """The inputs of one network call."""

    network: Network
    x: Array
    t: Array
    cond: Any
    node: Node  # of `t`
    taps: dict[str, Any] = {}  # noqa: RUF012
    half: int | None = None  # rows of x, where cond and t hold two of them


class Output(NamedTuple):
    """What one network call returned; leaves [B, ...]."""

    prediction: Array
    extra: Any = None
    record: Any = None


def evaluate(
    networks: Mapping[str, Network],
    chain: Chain,
    state: tuple[Any, ...],
    step: Step,
    **options: Any,
) -> tuple[Pair, tuple[Any, ...]]:
    """`guided_prediction` as the pair that samplers use, and the next state."""
    guided, extra, state = guided_prediction(networks, chain, state, step, **options)
    kind = networks["main"].kind
    return as_pair(kind, guided, step)._replace(extra=extra), state


def as_pair(kind: str, guided: Guided, step: Step) -> Pair:
    """The running result as (denoised, noise), with the noise a transform has set."""
    denoised, noise = paths.to_pair(kind, guided.prediction, step.x, step.node)
    noise = noise if guided.noise is None else guided.noise
    return Pair(denoised, noise.astype(denoised.dtype))


def guided_prediction(
    networks: Mapping[str, Network],
    chain: Chain,
    state: tuple[Any, ...],
    step: Step,
    *,
    live: tuple[Live, ...],
    key: Array | None = None,
    most: int | None = 0,
) -> tuple[Guided, Any, tuple[Any, ...]]:
    """The chain's result at one step, in the kind of the main network.

    Args:
        networks: named networks; `"main"` is the one that is guided.
        chain: transforms whose schedules are numbers of this step (`Chain.at`).
        state: states of the chain's parts.
        step: the noisy state, its time, and the named conditions.
        live: which parts need their branches: from the host, or a traced [] bool where
            only the step knows.
        key: PRNG key of this step, for transforms that draw.
        most: rows in one forward pass, which branches of one network share that change
            only inputs; 0 for one call each, None by the device: see `MOST_ROWS`.

    Returns:
        (running result, second output of the raw call or None, next states).

    Raises:
        InputError: if a branch names a condition or network that is not there.
    """

    check_state(step.x)
    for part in chain.parts:
        check_numbers(part, step.x)
    live = chain.open(state, live)
    needs = chain.needs(networks["main"], live)
    view, extra = predict_branches(
        networks, needs, step, key=key, most=most, parts=chain.parts
    )
    guided, states = chain.apply(Guided(view[RAW]), state, view, live=live)
    return guided, extra, states


def predict_branches(
    networks: Mapping[str, Network],
    wanted: Iterable[OwnedBranch],
    step: Step,
    *,
    key: Array | None = None,
    most: int | None = 0,
    parts: tuple[Any, ...] = (),
) -> tuple[View, Any]:
    """Evaluates `RAW` and every branch once; arguments as in `guided_prediction`.

    `wanted` may map a branch to the bits one of which says that it is needed; where
    none does, it is not called and its prediction is zeros. Branches whose input is
    made from other predictions come in a second round.

    Returns:
        (the predictions, second output of the raw call or None).
    """
    view = View(networks["main"], step, key, parts)
    bits = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, ())
    # A dict and not a set: all processes of a run must trace the same program, and the
    # order of a set depends on hashes that differ between them.
    bits = {OwnedBranch(RAW): (True,)} | bits | {OwnedBranch(RAW): (True,)}
    rounds: dict[bool, dict[OwnedBranch, Bits]] = {}
    for one, each in bits.items():
        if one.branch.differentiable:
            # Not called here: the transform differentiates the function at a place of
            # its own choice, and a value has no gradient.
            view.store_function(one, _function(networks, one, view))
            continue
        # Two rounds, because an input of the second is made from predictions of the
        # first (SAG blurs the clean image that the network predicts). Two are enough:
        # no change reads a prediction of the second round.
        rounds.setdefault(one.branch.change.second, {})[one] = needed(each)
    for second in sorted(rounds):
        for one, evaluated in _round(networks, rounds[second], view, most).items():
            view.store(one, evaluated)
    return view, view.extra


def _round(
    networks: Mapping[str, Network],
    bits: dict[OwnedBranch, Bits],
    view: View,
    most: int | None,
) -> dict[OwnedBranch, Evaluated]:
    """Branches whose inputs are known together; on several devices, if there are."""
    count = devices_of_branches()
    if count == 1 or len(bits) == 1:
        return _where_needed(networks, bits, view, most)

    def run(ones: list[OwnedBranch]) -> list[Any]:
        mine = {one: bits[one] for one in ones}
        made = _where_needed(networks, mine, view, most)
        return [
            (made[one].prediction, made[one].record, made[one].extra) for one in ones
        ]

    parts = shares(networks, list(bits), count)
    found: dict[OwnedBranch, Evaluated] = {}
    for ones, outputs in zip(parts, on_devices(parts, run), strict=True):
        for one, (prediction, record, extra) in zip(ones, outputs, strict=True):
            # Where it was made, each device knows without being told.
            call = _call(networks, one, view)
            found[one] = Evaluated(prediction, call.x, call.node, record, extra)
    return found


def _where_needed(
    networks: Mapping[str, Network],
    bits: dict[OwnedBranch, Bits],
    view: View,
    most: int | None,
) -> dict[OwnedBranch, Evaluated]:
    """Branches that are needed together at a time."""
    together: dict[Any, tuple[Bits, list[OwnedBranch]]] = {}
    for one, when in bits.items():
        together.setdefault(tuple(map(id, when)), (when, []))[1].append(one)
    found: dict[OwnedBranch, Evaluated] = {}
    for when, ones in together.values():
        make = functools.partial(_predictions, networks, ones, view, most)
        found |= dict(zip(ones, where_needed(when, make), strict=True))
    return found


def _predictions(
    networks: Mapping[str, Network],
    ones: list[OwnedBranch],
    view: View,
    most: int | None,
) -> list[Evaluated]:
    """Branches that are needed together, in as few calls as `most` rows allow."""
    calls = {one: _call(networks, one, view) for one in ones}

    def split(most: int) -> list[list[OwnedBranch]]:
        rows = len(view.step.x)
        return groups(networks, ones, most, rows, lambda one: _inputs(calls[one]))

    def run(split: list[list[OwnedBranch]]) -> list[Output]:
        made: dict[OwnedBranch, Output] = {}
        for group in split:
            outputs = _run([calls[one] for one in group])
            made |= dict(zip(group, outputs, strict=True))
        return [made[one] for one in ones]

    outputs = dict(zip(ones, by_platform(most, split, run), strict=True))
    return [
        Evaluated(
            _same_kind(networks["main"], calls[one], outputs[one].prediction),
            calls[one].x,
            calls[one].node,
            outputs[one].record,
            outputs[one].extra if one.branch == RAW else None,
        )
        for one in ones
    ]


def _call(networks: Mapping[str, Network], one: OwnedBranch, view: View) -> Call:
    """The inputs of the call that a branch describes."""
    branch, step = one.branch, view.step
    change, network = branch.change, find_network(networks, branch)
    # The view of the owner, for its key and its numbers. A shared branch has no owner;
    # its change reads neither (`Change.own`), so any position will do.
    here = view.of(one.owner or 0, branch.draw, network)
    cond = find_condition("guidance", branch.cond, step)
    check_rows(branch.cond, cond, step.x)
    cond = change.cond(cond, here)
    t, node, half = step.node.t, step.node, None
    if branch.time is not None:
        end = step.next_node
        t = branch.time(t, None if end is None else end.t)
        node = networks["main"].path.node(jnp.asarray(t))
    x = change.x(here)
    if (beside := change.beside()) is not None:
        other = find_condition("guidance", beside, step)
        check_rows(beside, other, step.x)
        cond = jax.tree.map(lambda *pair: jnp.concatenate(pair), cond, other)
        t, half = jnp.tile(jnp.broadcast_to(t, (len(x),)), 2), len(x)
    return Call(network, x, t, cond, node, change.taps(here), half)


def _inputs(call: Call) -> Any:
    """Equal for calls of one network that can be joined along the first axis."""
    # A prompt beside None, or beside a longer one, cannot.
    leaves, tree = jax.tree.flatten(call.cond)
    cond = tree, tuple((jnp.shape(one)[1:], jnp.result_type(one)) for one in leaves)
    # A function that is given one time for all its rows may know no other.
    alone = not call.network.batch_time and not jnp.ndim(call.t)
    return cond, id(call.t) if alone else None


def _run(calls: list[Call]) -> list[Output]:
    """What each call returned; several calls of a network become one forward pass."""
    if len(calls) == 1:
        return [_predict(calls[0])]

    def together(*leaves: Array) -> Array:
        return jnp.concatenate(leaves)

    t = calls[0].t
    if any(call.t is not t for call in calls):
        # One time per row, since branches may differ in their times (`sg`).
        t = together(*(jnp.broadcast_to(call.t, (len(call.x),)) for call in calls))
    elif jnp.ndim(t):
        t = together(*(call.t for call in calls))
    joined = calls[0]._replace(
        x=together(*(call.x for call in calls)),
        t=t,
        cond=jax.tree.map(together, *(call.cond for call in calls)),
    )
    out, size = _predict(joined), len(calls[0].x)
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i * size : (i + 1) * size], out)
        for i in range(len(calls))
    ]


def _predict(call: Call) -> Output:
    """One forward pass; of a pair of conditions only the first half is kept."""
    x, t = call.x, jnp.asarray(call.t)
    if call.half is not None:
        x = jnp.concatenate([x, x])
    if call.network.batch_time:
        t = jnp.broadcast_to(t, (len(x),))
    out = call.network.predict(x, t, call.cond, **call.taps)
    output = _checked(out)
    if output.prediction.shape != x.shape:
        raise InputError(
            "guidance: need predictions shaped like x, got "
            f"prediction.shape={output.prediction.shape} for x.shape={x.shape}. "
            "A network with more channels must return a pair (prediction, extra)."
        )
    if call.half is None:
        return output
    return jax.tree.map(lambda leaf: leaf[: call.half], output)


def _checked(out: Any) -> Output:
    """What a network returned, if its prediction is an array of real numbers."""
    prediction: Any
    prediction, *rest = out if isinstance(out, tuple) and out else (out,)
    dtype = getattr(prediction, "dtype", None)
    real = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    if not real or len(rest) > 2:
        found = shown(out) if dtype is None or real else f"an array of {dtype}"
        raise InputError(
            "guidance: need a network that returns a floating-point array like x, or a "
            f"tuple (prediction, extra, record), got {found}. Wrap it in a function "
            "that returns the prediction."
        )
    return Output(prediction, *rest)


def _same_kind(main: Network, call: Call, prediction: Array) -> Array:
    """The prediction of another network, in the kind of the main one."""
    network = call.network
    if network.path != main.path:
        raise InputError(
            "guidance: need networks of one noise path, got "
            f"{main.path!r} and {network.path!r}."
        )
    if network.kind == main.kind:
        return prediction
    return paths.convert(prediction, call.x, call.node, network.kind, main.kind)


def _function(
    networks: Mapping[str, Network], one: OwnedBranch, view: View
) -> Callable[[Array], Array]:
    """A differentiable branch as a function of x, in the kind of the main network."""

    def function(x: Array) -> Array:
        here = _call(networks, one, view)._replace(x=x)
        return _same_kind(networks["main"], here, _predict(here).prediction)

    return function
