"""The evaluator: every declared branch of a chain, evaluated once.

Two ways that agree to float32 tolerance: one call per branch, or all branches of one
network that change only its inputs in one forward pass on a larger batch. Branches that
change the inside of the network (dropped blocks) are always calls of their own, so that
the work they leave out is really saved.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxguide import paths
from jaxguide.guidance._base import (
    RAW,
    Branch,
    Guided,
    Network,
    Outputs,
    Step,
    find_network,
)
from jaxguide.guidance._chain import Chain
from jaxguide.paths import Array, Node


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

    x: Array
    t: Array
    cond: Any
    taps: dict[str, Any] = {}  # noqa: RUF012
    half: int | None = None  # rows of x, where cond and t hold two of them


class Made(NamedTuple):
    """What one network call made; leaves [B, ...]."""

    prediction: Array
    extra: Any = None
    record: Any = None


def default_batched() -> bool:
    """One large forward pass on accelerators; on a CPU separate calls are faster."""
    return jax.default_backend() != "cpu"


def guided_prediction(
    networks: Mapping[str, Network],
    chain: Chain,
    state: tuple[Any, ...],
    step: Step,
    *,
    live: tuple[bool, ...],
    key: Array | None = None,
    batched: bool = False,
) -> tuple[Guided, Any, tuple[Any, ...]]:
    """The chain's result at one step in the kind of the main network.

    Args:
        networks: `main` and any other that a branch names.
        chain: with every schedule replaced by its number (`Chain.at`).
        state: made by `chain.init`.
        step: noisy state, time and conditions.
        live: which parts of the chain are live here; static.
        key: this step's key; folded per transform and draw.
        batched: whether branches that change only inputs share one forward pass.

    Returns:
        (guided, second output of the main network's raw call or None, next state).

    Raises:
        ValueError: if a branch names a condition or network that is not there.
    """

    def run(live: tuple[bool, ...]) -> tuple[Guided, Any, tuple[Any, ...]]:
        wanted = chain.branches(networks["main"], live)
        outputs = predict_branches(
            networks,
            wanted,
            step,
            key=key,
            batched=batched,
            values=chain.values(step),
        )
        raw = Guided(outputs[RAW])
        guided, states = chain.apply(raw, state, outputs, step, live=live)
        return guided, outputs.extra, states

    gates = [i for i, gated in enumerate(chain.gated()) if gated and live[i]]
    return _where_open(run, chain, state, live, gates)


def _where_open(
    run: Callable[[tuple[bool, ...]], Any],
    chain: Chain,
    state: tuple[Any, ...],
    live: tuple[bool, ...],
    gates: list[int],
) -> Any:
    """`run(live)`, without the branches of gated parts that are closed at run time."""
    if not gates:
        return run(live)
    owner, rest = gates[0], gates[1:]
    closed = (*live[:owner], False, *live[owner + 1 :])
    return lax.cond(
        chain.gate(owner, state),
        lambda: _where_open(run, chain, state, live, rest),
        lambda: _where_open(run, chain, state, closed, rest),
    )


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


def predict_branches(
    networks: Mapping[str, Network],
    branches: tuple[Branch, ...],
    step: Step,
    *,
    key: Array | None = None,
    batched: bool = False,
    values: tuple[Any, ...] = (),
) -> Outputs:
    """Evaluates `RAW` and every branch once, in two rounds; see `evaluate`.

    `values` are the numbers that each transform of the chain hands to its taps.
    """
    outputs = Outputs(networks["main"], step, key)
    branches = tuple(dict.fromkeys((RAW, *branches)))
    rounds = [
        [b for b in branches if not b.differentiable and b.rewrite is None],
        [b for b in branches if not b.differentiable and b.rewrite is not None],
    ]
    for branch in branches:
        if branch.differentiable:
            call = _call(networks, branch, step, outputs, values)
            outputs.store_function(branch, _function(networks, branch, step, call))
    for wanted in rounds:
        calls = {b: _call(networks, b, step, outputs, values) for b in wanted}
        for group in _groups(wanted, batched):
            predictions = _run(networks, group, [calls[b] for b in group])
            for branch, made in zip(group, predictions, strict=True):
                x, t = calls[branch].x, calls[branch].t
                _file(networks, outputs, branch, made.prediction, x, t)
                outputs.store_record(branch, made.record)
                if branch == RAW:
                    outputs.extra = made.extra
    return outputs


def _groups(branches: list[Branch], batched: bool) -> list[list[Branch]]:
    """Which branches share a forward pass."""
    groups: dict[Any, list[Branch]] = {}
    for branch in branches:
        alone = not batched or branch.tap is not None
        groups.setdefault(branch if alone else branch.network, []).append(branch)
    return list(groups.values())


def _call(
    networks: Mapping[str, Network],
    branch: Branch,
    step: Step,
    outputs: Outputs,
    values: tuple[Any, ...],
) -> Call:
    """The inputs of the call that `branch` describes."""
    network, owner = find_network(networks, branch), branch.owner or 0
    owned = outputs.view(owner)
    cond, node = _condition(branch.cond, step), step.node
    if branch.cond_map is not None:
        key = None
        if branch.cond_map.random:
            key = owned.key(branch.cond_map.name, branch.draw)
        cond = branch.cond_map(cond, step, key)
    t = node.t
    if branch.time is not None:
        t = branch.time(t, _next_time(branch, step))
    x = step.x if branch.rewrite is None else branch.rewrite(step, owned)
    taps, tap, half = {}, branch.tap, None
    if tap is not None:
        key = owned.key(tap.name, branch.draw) if tap.random else None
        taps = tap.arguments(network, key, values[owner] if tap.valued else None)
        if tap.pair is not None:
            other = _condition(tap.pair, step)
            cond = jax.tree.map(lambda *pair: jnp.concatenate(pair), cond, other)
            t, half = jnp.tile(jnp.broadcast_to(t, (len(x),)), 2), len(x)
    return Call(x, t, cond, taps, half)


def _condition(name: str, step: Step) -> Any:
    """A named condition; raises ValueError if it is not there."""
    if name not in step.conds:
        raise ValueError(
            f"guidance: need a condition named {name!r}, got "
            f"{sorted(step.conds)}. Pass conds={{{name!r}: ...}}."
        )
    return step.conds[name]


def _next_time(branch: Branch, step: Step) -> Array:
    """Where the step ends; its start where a branch does not ask.

    A `time` that needs the step's end says so by `needs_next = True`.
    """
    if step.next_node is not None:
        return step.next_node.t
    if getattr(branch.time, "needs_next", False):
        raise ValueError(
            "guidance: need the time at which the step ends, got next_t=None. "
            "Pass next_t= to the guided function, or use `generate`."
        )
    return step.node.t


def _run(
    networks: Mapping[str, Network], group: list[Branch], calls: list[Call]
) -> list[Made]:
    """What each call made; several calls become one forward pass."""
    network = find_network(networks, group[0])
    if len(calls) == 1:
        (call,) = calls
        return [_predict(network, call)]
    times = [jnp.broadcast_to(c.t, (len(c.x),)) for c in calls]
    joined = Call(
        jnp.concatenate([c.x for c in calls]),
        jnp.concatenate(times),
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[c.cond for c in calls]),
    )
    out = _predict(network, joined)
    size = len(calls[0].x)
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i * size : (i + 1) * size], out)
        for i in range(len(calls))
    ]


def _predict(network: Network, call: Call) -> Made:
    """One forward pass; of a pair only the first half is kept."""
    x, t = call.x, jnp.asarray(call.t)
    if call.half is not None:
        x = jnp.concatenate([x, x])
    if network.batch_time:
        t = jnp.broadcast_to(t, (len(x),))
    out = network.predict(x, t, call.cond, **call.taps)
    made = Made(*out) if isinstance(out, tuple) else Made(out)
    if made.prediction.shape != x.shape:
        raise ValueError(
            "guidance: need predictions shaped like x, got "
            f"prediction.shape={made.prediction.shape} for x.shape={x.shape}. "
            "A network with more channels must return a pair (prediction, extra)."
        )
    if call.half is None:
        return made
    return jax.tree.map(lambda leaf: leaf[: call.half], made)


def _file(
    networks: Mapping[str, Network],
    outputs: Outputs,
    branch: Branch,
    prediction: Array,
    x: Array,
    t: Array,
) -> None:
    """Files a prediction, in the kind of the main network."""
    main, network = networks["main"], networks[branch.network]
    node = outputs.step.node
    if branch.time is not None:
        node = main.path.node(jnp.asarray(t))
    prediction = _same_kind(main, network, prediction, x, node)
    outputs.store(branch, prediction, x, node)


def _same_kind(
    main: Network, network: Network, prediction: Array, x: Array, node: Node
) -> Array:
    """The prediction of another network, in the kind of the main one."""
    if network.path != main.path:
        raise ValueError(
            "guidance: need networks of one noise path, got "
            f"{main.path!r} and {network.path!r}."
        )
    if network.kind == main.kind:
        return prediction
    return paths.convert(prediction, x, node, network.kind, main.kind)


def _function(
    networks: Mapping[str, Network], branch: Branch, step: Step, call: Call
) -> Callable[[Array], Array]:
    """A differentiable branch as a function of x, in the kind of the main network."""
    main, network = networks["main"], find_network(networks, branch)
    node = step.node if branch.time is None else main.path.node(jnp.asarray(call.t))

    def function(x: Array) -> Array:
        prediction = _predict(network, call._replace(x=x)).prediction
        return _same_kind(main, network, prediction, x, node)

    return function
