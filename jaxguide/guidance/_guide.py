"""`guide`: anybody's `f(x, t, cond)` as a guided one, with explicit state."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._arguments import check_function, check_key, check_mapping
from jaxguide.guidance._base import Guided, Step
from jaxguide.guidance._batching import most_rows
from jaxguide.guidance._chain import Chain, chain, check_acts
from jaxguide.guidance._checks import shown
from jaxguide.guidance._evaluate import (
    Pair,
    as_pair,
    guided_prediction,
)
from jaxguide.guidance._live import Live, by_mode
from jaxguide.guidance._network import Network
from jaxguide.guidance._one_sample import batch_of_one, check_alone, for_rows, only_one
from jaxguide.guidance._plan import all_modes, make_pieces, share_program
from jaxguide.guidance._schedule import slack
from jaxguide.guidance._step_checks import check_state, check_time
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, Node, Path

DIRECTIONS = ("noise", "data")


class GuideState(NamedTuple):
    """What a guided function carries from step to step."""

    taken: Array  # [] int32, steps so far; folded into the key
    parts: tuple[Any, ...]  # states of the chain's transforms


def check_guide_state(state: Any, parts: Chain, x: Array) -> None:
    """Refuses what `init` of this guided function would not make for x."""
    if not isinstance(state, GuideState):
        raise InputError(
            "guide: need the state from init(x) or the call before, got "
            f"state={shown(state)}. Begin with state = guided.init(x)."
        )
    if len(state.parts) != len(parts.parts):
        return  # refused by the chain, with both numbers
    wanted = jax.eval_shape(parts.init, x)
    same = jax.tree.structure(wanted) == jax.tree.structure(state.parts)
    shapes = [
        tuple(np.shape(leaf) for leaf in jax.tree.leaves(tree))
        for tree in (wanted, state.parts)
    ]
    if not same or shapes[0] != shapes[1]:
        raise InputError(
            "guide: need the state of this guidance and of states shaped like x "
            f"{x.shape}, got leaves of shapes {shapes[1]} for {shapes[0]}. Begin with "
            "state = guided.init(x)."
        )


@dataclasses.dataclass(frozen=True)
class Guide:
    """A guided prediction function, made by `guide`.

    Call it where the plain function was called:

        state = guided.init(x)
        prediction, state = guided(x, t, cond, state, conds={"null": null})

    A pytree: it may be an argument of a jitted function, its weights then traced.
    With `batch_ndim=0` x is one sample [*D], and so is all else that has [B] below.
    """

    network: Network
    guidance: Chain
    networks: Mapping[str, Network]
    time: str
    batched: bool | int | None
    batch_ndim: int = 1

    def init(self, x: Array) -> GuideState:
        """The state before the first step, for states like `x` [B, *D].

        Raises:
            InputError: if x is no array of floating-point numbers.
        """
        check_state(x)
        x = self._batch(x)
        return GuideState(jnp.zeros((), jnp.int32), self.guidance.init(x))

    def __call__(
        self,
        x: Array,
        t: Any,
        cond: Any,
        state: GuideState,
        *,
        conds: Mapping[str, Any] | None = None,
        key: Array | None = None,
        next_t: Any = None,
    ) -> tuple[Array, GuideState]:
        """The guided prediction, in the kind and time direction of the function.

        Args:
            x: noisy state [B, *D].
            t: time [] or [B] in [0, 1], in the function's own direction. For [],
                branches are not evaluated outside their window, also under jit. Times
                [B] may differ; each sample then has its own weights. A traced time
                outside [0, 1] cannot be refused.
            cond: the function's condition, leaves [B, ...].
            state: from `init` or the call before; pass a new one to restart.
            conds: named further conditions, such as `{"null": labels}`.
            key: for transforms that draw (S2); folded with the step count here.
            next_t: time at which the sampler's step ends, for the few transforms that
                look ahead (`rectified_cfgpp`).

        Returns:
            (prediction [B, *D], next state).

        Raises:
            InputError: if a condition, network or key is missing, a transform couples
                to the sampler (then use `pair`), a known time lies outside [0, 1], or
                x, a condition or a number per sample has another batch.
        """

        def prediction(guided: Guided, step: Step) -> Array:
            del step
            if guided.noise is None:
                return guided.prediction
            raise InputError(
                "guide: need transforms that give one prediction, got one that sets "
                "the noise for the sampler. Use .pair(...) and renoise with its noise."
            )

        times = t, next_t
        out, state = self._guided(prediction, x, times, cond, state, conds, key)
        sign = -1 if self.time == "data" and self.network.kind == "velocity" else 1
        out = self._unbatch(out)
        return out * sign if sign < 0 else out, state

    def pair(
        self,
        x: Array,
        t: Any,
        cond: Any,
        state: GuideState,
        *,
        conds: Mapping[str, Any] | None = None,
        key: Array | None = None,
        next_t: Any = None,
    ) -> tuple[Pair, GuideState]:
        """As the call itself, but as (denoised, noise), whatever the direction."""
        make = functools.partial(as_pair, self.network.kind)
        pair, state = self._guided(make, x, (t, next_t), cond, state, conds, key)
        return self._unbatch(pair), state

    def _guided(
        self,
        finish: Callable[[Guided, Step], Any],
        x: Array,
        times: tuple[Any, Any],
        cond: Any,
        state: GuideState,
        conds: Mapping[str, Any] | None,
        key: Array | None,
    ) -> tuple[Any, GuideState]:
        """What `finish` makes of the running result, and the next state."""
        check_state(x)
        check_mapping("guide", "conds", conds, "null")
        check_key("guide", "key", key, "jax.random.key(0)")
        if not self.batch_ndim:
            check_alone(self.guidance, self.network)
        x, named = self._batch((x, {"cond": cond, **(conds or {})}))
        check_guide_state(state, self.guidance, x)
        t = self._noise_time("t", times[0], x)
        next_t = None if times[1] is None else self._noise_time("next_t", times[1], x)
        step = Step(
            x,
            self._node(t),
            named,
            jnp.zeros((), bool),
            state.taken,
            None if next_t is None else self._node(next_t),
        )
        parts, every = self.guidance.at(t), {"main": self.network, **self.networks}
        most = most_rows("guide", self.batched, (x, t, named, every))

        def run(live: tuple[Live, ...]) -> tuple[Any, tuple[Any, ...]]:
            guided, _, states = guided_prediction(
                every,
                parts,
                state.parts,
                step,
                live=live,
                key=None if key is None else jax.random.fold_in(key, state.taken),
                most=most,
            )
            return finish(guided, step), states

        modes, which = _modes(self.guidance, t, state.taken)
        shared = share_program(self.guidance, every, modes, most=most, rows=len(x))
        out, states = by_mode(modes, which, run, shared=shared)
        return out, GuideState(state.taken + 1, states)

    def _batch(self, tree: Any) -> Any:
        return tree if self.batch_ndim else batch_of_one(tree)

    def _unbatch(self, tree: Any) -> Any:
        return tree if self.batch_ndim else only_one(tree)

    def _noise_time(self, argument: str, t: Any, x: Array) -> Any:
        """The time [] or [B] as a noise time."""
        t = check_time(argument, t, x)
        return 1 - t if self.time == "data" else t

    def _node(self, t: Any) -> Node:
        return jax.tree.map(jnp.asarray, self.network.path.node(t))


jax.tree_util.register_dataclass(
    Guide,
    data_fields=["network", "guidance", "networks"],
    meta_fields=["time", "batched", "batch_ndim"],
)


def _modes(
    parts: Chain, t: Any, taken: Array
) -> tuple[tuple[tuple[bool, ...], ...], Array]:
    """Which parts may be live at t, and a number [] that says which it is.

    A host time decides at once; a traced scalar one lies in one of the pieces of noise
    time that the windows make; for times [B] every part counts as live.
    """
    zero = jnp.zeros((), jnp.int32)
    if not isinstance(t, jax.Array) and not np.ndim(t):
        index = 0 if isinstance(taken, Tracer) else int(taken)
        return (parts.live(float(t), index),), zero
    pieces = make_pieces(parts)
    modes = all_modes(pieces)
    if len(modes) == 1:
        return modes, zero
    # With times [B] a part may be needed by some samples only. All compute it then, and
    # the weight, which is per sample, leaves out the others.
    if np.ndim(t):
        return ((True,) * len(parts.parts),), zero
    # Pieces run from noise to data, so the edges above t count the pieces before it.
    inner = jnp.asarray([piece.stop for piece in pieces[:-1]])
    piece = (t + slack(t) < inner.astype(t.dtype)).sum()
    return modes, jnp.asarray([modes.index(one.live) for one in pieces])[piece]


def guide(
    predict: Callable[..., Array],
    guidance: Chain | Transform,
    *,
    kind: str = "velocity",
    path: Path | None = None,
    time: str = "noise",
    depth: int = 0,
    tokens: tuple[int, int] | None = None,
    networks: Mapping[str, Callable[..., Array]] | None = None,
    batched: bool | int | None = None,
    batch_ndim: int = 1,
) -> Guide:
    """Turns anybody's prediction function into a guided one with explicit state.

    Args:
        predict: `(x, t, cond, **taps) -> prediction`; `taps` only if a transform
            changes the inside of the network (S2: `keep_blocks`, PAG: `attention`).
        guidance: a transform, or a `chain` of them. Windows are always noise times.
        kind: what it predicts: "velocity", "denoised", "noise" or "score".
        path: noise path it was trained on; `paths.Linear()` if None.
        time: "noise" if its t = 1 is noise, "data" if its t = 1 is data (SiT); then
            times are 1 - t and velocities change sign.
        depth: number of blocks, for transforms that choose some.
        tokens: (rows, columns) of its tokens, for transforms that look at neighbours;
            a square if None.
        networks: further functions by name, with the same conventions.
        batched: branches in one call on a larger batch (True), one call each (False),
            or as many in one call as have so many rows together; None chooses by the
            device. A time [] stays one, so branches at another time (`sg`) then are
            calls of their own.
        batch_ndim: 1 for functions of a batch. 0 for functions of one sample, x [*D]
            and t [], to be used under `jax.vmap` or alone: it equals the batch. Never
            map a guided function of a batch over samples: the first axis of a sample
            would be taken for the batch, and norms, projections and standard
            deviations be those of its rows. What can be told from the condition is
            refused. What changes the inside of a network still has a batch axis, of 1.

    Returns:
        A `Guide`: `init(x) -> state`, and a call
        `(x, t, cond, state, conds=..., key=...) -> (prediction, state)`.

    Raises:
        InputError: if `kind`, `time` or `batch_ndim` is unknown, or an argument is of
            the wrong kind, such as `guidance=cfg` for `cfg(1.5)`.

    >>> import jax.numpy as jnp
    >>> from jaxguide.guidance import cfg
    >>> plain = lambda x, t, label: x * label[:, None]
    >>> guided = guide(plain, cfg(3.0))
    >>> x, one = jnp.ones((1, 2)), jnp.ones(1)
    >>> out, _ = guided(x, 0.5, one, guided.init(x), conds={"null": 0 * one})
    >>> out.tolist()
    [[3.0, 3.0]]
    """
    if time not in DIRECTIONS:
        raise InputError(f"guide: need time in {DIRECTIONS}, got time={time!r}.")
    if batch_ndim not in (0, 1):
        raise InputError(f"guide: need batch_ndim 0 or 1, got {batch_ndim!r}.")
    check_mapping("guide", "networks", networks, "weak")
    path = paths.Linear() if path is None else path

    def network(argument: str, function: Callable[..., Array], **facts: Any) -> Network:
        check_function("guide", argument, function)
        inner = _reversed(function, kind) if time == "data" else function
        inner = inner if batch_ndim else for_rows(inner)
        return Network(inner, kind, path, batch_time=False, **facts)

    others = {
        name: network(f"networks[{name!r}]", f) for name, f in (networks or {}).items()
    }
    most_rows("guide", batched, ())
    main = network("predict", predict, depth=depth, tokens=tokens)
    parts = check_acts("guide", chain(guidance))
    return Guide(main, parts, others, time, batched, batch_ndim)


def _reversed(function: Callable[..., Array], kind: str) -> Callable[..., Array]:
    """A function of data time as one of noise time."""

    @functools.wraps(function)
    def reversed_time(x: Array, t: Array, cond: Any, **taps: Any) -> Any:
        out = function(x, 1 - t, cond, **taps)
        if kind != "velocity":
            return out
        return (-out[0], *out[1:]) if isinstance(out, tuple) else -out

    return reversed_time
