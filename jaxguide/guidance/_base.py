"""The algebra: branches, what they cost, and the two functions of a transform.

    guided = raw + sum_i weight_i(t) * (a_i - b_i)

`raw` is the plain conditional prediction; `a_i` and `b_i` are branches: predictions of
a network under one change of its inputs. A transform declares its branches and says
how it combines them; it never calls a network. `_evaluate.py` calls, `_plan.py` counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxguide import paths
from jaxguide.guidance._numbers import add_scaled, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.paths import Array, Node, Path

if TYPE_CHECKING:
    from jaxguide.guidance._view import View


@dataclasses.dataclass(frozen=True)
class Change:
    """What is different in one network call, besides names and the time.

    Subclasses are frozen dataclasses, static and hashable, and override the hooks they
    need. `here` is what the transform that owns the branch sees: the step, the network
    that is called, predictions of the first round, a PRNG key, its own numbers.

    A subclass that calls `here.key` or reads `here.part` sets `own = True`: no other
    transform then shares the branch. One whose `x` reads predictions sets `second =
    True`: it is evaluated in a second round.
    """

    name = "change"  # of the method, for error messages
    own = False
    second = False

    def cond(self, cond: Any, here: View) -> Any:
        """The condition [B, ...] that the network gets instead of `cond`."""
        del here
        return cond

    def x(self, here: View) -> Array:
        """The state [B, *D] that the network gets."""
        return here.step.x

    def taps(self, here: View) -> dict[str, Any]:
        """Keyword arguments for `here.called.predict` that change its inside."""
        del here
        return {}

    def beside(self) -> str | None:
        """Name of a condition that runs beside the branch's own, as a second half of
        the batch that attention can see; only the first half is the prediction."""
        return None

    def around(self, network: Network) -> Network:
        """The network that is called instead, such as one that sees crops."""
        return network

    def share(self, network: Network) -> float:
        """FLOPs of the changed forward pass, relative to the full one."""
        del network
        return 1.0


@dataclasses.dataclass(frozen=True)
class Branch:
    """A static description of one network call; equal branches are evaluated once.

    `cond` and `network` name an entry of the sampler's conditions and networks. `time`
    maps (noise time, noise time at the step's end or None) to the time that the network
    is given. `change` is whatever else differs. `draw` numbers several random draws of
    one transform. A `differentiable` branch is counted but not called: the transform
    gets it as a function of x (`View.function`) to take gradients of.
    """

    cond: str = "cond"
    network: str = "main"
    time: Callable[[Any, Any], Any] | None = None
    change: Change = Change()
    draw: int = 0
    differentiable: bool = False

    def __post_init__(self):
        if self.differentiable and self.change.second:
            raise ValueError(
                "Branch: need differentiable or a change of a second round, got both. "
                "A function of x has no input to rewrite."
            )

    def owned_by(self, owner: int) -> OwnedBranch:
        """As the evaluator files it: with its owner, unless others may share it."""
        own = self.differentiable or self.change.own
        return OwnedBranch(self, owner if own else None)

    @property
    def calls(self) -> int:
        """Network evaluations per sample."""
        return 1 if self.change.beside() is None else 2


class OwnedBranch(NamedTuple):
    """A branch and the place in the chain of the transform that alone may read it."""

    branch: Branch
    owner: int | None = None  # None: every transform may


RAW = Branch()
# The same network without its condition.
NULL = Branch(cond="null")


@pytree("predict")
class Network:
    """A predictor and what must be known about it. A pytree; `predict` holds weights.

    Args:
        predict: `(x [B, *D], t [B], cond, **taps) -> prediction [B, *D]`, or a pair
            (prediction, extra) whose second part is handed to the sampler, or a triple
            (prediction, extra or None, record) if a change asks for a record. Wrap
            weights as `jax.tree_util.Partial(function, params)` so that they are
            traced.
        kind: what it predicts, one of `paths.KINDS`.
        path: the noise path it was trained on.
        depth: number of blocks that can be dropped through `keep_blocks`; 0 if none.
        flops: FLOPs of one forward pass per sample; None if unknown.
        block_flops: FLOPs of one block per sample.
        batch_time: whether a scalar time is widened to [B] before the call.
        tokens: (rows, columns) of its tokens, for changes that look at neighbours; None
            if unknown, then a square is assumed.
        calls: network evaluations that one prediction counts as.

    Raises:
        ValueError: if `kind` is unknown.
    """

    predict: Callable[..., Any]
    kind: str = "velocity"
    path: Path = paths.Linear()
    depth: int = 0
    flops: float | None = None
    block_flops: float = 0.0
    batch_time: bool = True
    tokens: tuple[int, int] | None = None
    calls: int = 1

    def __post_init__(self):
        paths.check_kind("Network", self.kind)
        leaves = jax.tree.leaves(self.predict)
        if len(leaves) == 1 and leaves[0] is self.predict and callable(self.predict):
            object.__setattr__(self, "predict", jax.tree_util.Partial(self.predict))


class Step(NamedTuple):
    """What a transform may read during one sampling step."""

    x: Array  # [B, *D] noisy state
    node: Node  # noise time and the path's coefficients there, each [] or [B]
    conds: Mapping[str, Any]  # named conditions; leaves [B, ...]
    restart: Array  # [] bool: True where the previous step is no valid memory
    step_index: Array | int = 0  # [] int32
    next_node: Node | None = None  # where the step ends; None if nobody knows


class Guided(NamedTuple):
    """The running result of a chain, in the kind of the main network.

    `noise` is None while it follows from `prediction`; a transform that couples to the
    sampler (CFG++) sets it, and the sampler then renoises with it.
    """

    prediction: Array  # [B, *D]
    noise: Array | None = None  # [B, *D]

    def plus(self, weight: Array, change: Array) -> Guided:
        """With `weight * change` added, bitwise unchanged where `weight` is 0."""
        return self._replace(prediction=add_scaled(self.prediction, weight, change))


class Transform:
    """One guidance method: two pure functions, its branches, and when it is live.

    Subclasses are frozen dataclasses registered as pytrees (`pytree`): `Schedule`s and
    arrays are leaves, all else is static and hashable. Inside `apply` every schedule
    holds its number at this step, `self.weight.number`.

    Most methods need `branches`, `switches` and `change`; one that remembers overrides
    `init` and `apply`. A transform with `gated = True` also has `gate`.
    """

    name = "transform"  # of the method, for error messages
    gated = False  # whether its branches can stop being needed while sampling

    def init(self, x: Array) -> Any:
        """State carried from step to step, a NamedTuple or (); `x` is [B, *D]."""
        del x
        return ()

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """What must be evaluated while live, besides `RAW`."""
        del network
        return ()

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """Schedules, each with the number at which it switches the transform off."""
        return ()

    def live(self, t: float, index: int = 0) -> bool:
        """Whether branches are needed in step `index`, which starts at host time `t`.

        False where the result is known to be neutral, or made from what was saved.
        """
        del index
        return not any(one.neutral_at(t, neutral) for one, neutral in self.switches())

    def gate(self, state: Any) -> Array:
        """Of a gated transform, [] bool: False ends its evaluations at run time."""
        raise NotImplementedError

    def apply(
        self, guided: Guided, state: Any, here: View, *, live: bool
    ) -> tuple[Guided, Any]:
        """The next running result and state; updates the state also when not live."""
        return (self.change(guided, here) if live else guided), state

    def change(self, guided: Guided, here: View) -> Guided:
        """The next running result of a live step, for a transform without state."""
        raise NotImplementedError


def find_network(networks: Mapping[str, Network], branch: Branch) -> Network:
    """The network of a branch, as it is called; ValueError if it is not there."""
    if branch.network not in networks:
        raise ValueError(
            f"guidance: need a network named {branch.network!r}, got "
            f"{sorted(networks)}. Pass networks={{{branch.network!r}: Network(...)}}."
        )
    return branch.change.around(networks[branch.network])


def find_condition(name: str, condition: str, step: Step) -> Any:
    """A named condition of the sampler; ValueError, that begins with the method's
    `name`, if it is not there."""
    if condition not in step.conds:
        raise ValueError(
            f"{name}: need a condition named {condition!r}, got {sorted(step.conds)}. "
            f"Pass conds={{{condition!r}: ...}}."
        )
    return step.conds[condition]
