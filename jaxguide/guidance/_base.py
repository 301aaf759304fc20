"""The algebra: branches of the network, and what a transform sees of them.

    guided = raw + sum_i weight_i(t) * (a_i - b_i)

`raw` is the plain conditional prediction; `a_i` and `b_i` are branches: predictions of
a network under one change of its inputs. A transform declares its branches and says
how it combines them; it never calls a network. `_evaluate.py` calls, `_plan.py` counts.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import ANY, NATIVE, add_scaled
from jaxguide.paths import Array, Node


@dataclasses.dataclass(frozen=True)
class Change:
    """What is different in one network call, besides names and the time.

    Subclasses are frozen dataclasses, static and hashable, and override the hooks they
    need. `here` is what the transform that owns the branch sees: the step, the network
    that is called, predictions of the first round, a PRNG key, its own numbers.

    A subclass that calls `here.key`, reads `here.part` or a branch that is not shared
    sets `own = True`: no other transform then shares its branch. One whose `x` reads
    predictions sets `second = True`: it is evaluated in a second round.
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
            raise InputError(
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


class Step(NamedTuple):
    """What a transform may read during one sampling step."""

    x: Array  # [B, *D] noisy state
    node: Node  # noise time and the path's coefficients there, each [] or [B]
    conds: Mapping[str, Any]  # named conditions; leaves [B, ...]
    restart: Array  # [] bool: True where the previous step is no valid memory
    step_index: Array | int = 0  # [] int32
    next_node: Node | None = None  # where the step ends; None if unknown


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


class Evaluated(NamedTuple):
    """A prediction, in the kind of the main network, and where it was made."""

    prediction: Array  # [B, *D]
    x: Array  # [B, *D]
    node: Node
    record: Any = None  # what the network recorded for a change that asks for it
    extra: Any = None  # second output, of `RAW` alone


class View:
    """The predictions of the declared branches at one step, as one transform sees them.

    Lives inside one trace; it is not a pytree and never leaves a sampling step.

    Attributes:
        network: the main network.
        called: in a `Change`, the network that its branch calls.
        step: the step.
    """

    def __init__(
        self,
        network: Network,
        step: Step,
        key: Array | None = None,
        parts: tuple[Any, ...] = (),
    ):
        self.network, self.called, self.step = network, network, step
        self._key, self._parts = key, parts
        self._owner, self._draw = 0, 0
        self._evaluated: dict[OwnedBranch, Evaluated] = {}
        self._functions: dict[OwnedBranch, Callable[[Array], Array]] = {}

    def of(self, owner: int, draw: int = 0, called: Network | None = None) -> View:
        """The same predictions as the transform at position `owner` sees them."""
        # A shallow copy: the predictions are shared, also those stored later. Owner and
        # draw choose the key and the numbers; with one view for all, two transforms of
        # one kind would draw the same.
        twin = copy.copy(self)
        twin._owner, twin._draw = owner, draw
        twin.called = called or self.network
        return twin

    @property
    def part(self) -> Any:
        """The transform that sees this, its schedules numbers of this step."""
        return self._parts[self._owner]

    def key(self, name: str) -> Array:
        """This step's PRNG key of the transform, its own for every `Branch.draw`.

        Raises:
            InputError: if the sampler was given no key; `name` is that of the method.
        """
        if self._key is None:
            raise InputError(
                f"{name}: need a PRNG key to draw from, got key=None. "
                "Pass key=jax.random.key(0) to the sampler."
            )
        # By position, so that appending a transform leaves other draws as they are.
        return jax.random.fold_in(
            jax.random.fold_in(self._key, self._owner), self._draw
        )

    def store(self, one: OwnedBranch, evaluated: Evaluated) -> None:
        """Files what the evaluator made of a branch."""
        self._evaluated[one] = evaluated

    def store_function(self, one: OwnedBranch, function: Callable) -> None:
        """Files a differentiable branch as a function x [B, *D] -> prediction."""
        self._functions[one] = function

    @property
    def extra(self) -> Any:
        """Second output of the main network's raw call, if it has one."""
        return self._find(RAW).extra

    def record(self, branch: Branch) -> Any:
        """What the network recorded for a branch whose change asks for it."""
        return self._find(branch).record

    def function(self, branch: Branch) -> Callable[[Array], Array]:
        """A declared differentiable branch: x [B, *D] -> native prediction [B, *D]."""
        return self._functions[branch.owned_by(self._owner)]

    def __getitem__(self, branch: Branch) -> Array:
        return self._find(branch).prediction

    def read(self, branch: Branch, space: str = ANY) -> Array:
        """The prediction of a declared branch as `space`, converted at its own time."""
        prediction, x, node, *_ = self._find(branch)
        if space in (ANY, NATIVE):
            return prediction
        return paths.convert(prediction, x, node, self.network.kind, space)

    def _find(self, branch: Branch) -> Evaluated:
        evaluated = self._evaluated.get(branch.owned_by(self._owner))
        if evaluated is None:
            raise InputError(
                f"guidance: need a branch that the transform declares, got {branch!r}. "
                "Return it from `branches`."
            )
        return evaluated

    def convert(self, value: Array, space: str, to: str) -> Array:
        """A prediction at the step's own (x, t) from one space to another."""
        spaces = [
            self.network.kind if name in (ANY, NATIVE) else name for name in (space, to)
        ]
        return paths.convert(value, self.step.x, self.step.node, *spaces)

    def to_native(self, difference: Array, space: str) -> Array:
        """A difference of predictions in `space`, in the kind of the main network.

        Where that kind holds no trace of `space` (velocity from score at alpha = 0)
        the difference contributes nothing.
        """
        if space in (ANY, NATIVE, self.network.kind):
            return difference
        factor = paths.difference_factor(self.step.node, space, self.network.kind)
        factor = jnp.where(jnp.isfinite(factor), factor, jnp.zeros_like(factor))
        return paths.expand(factor, difference) * difference


def find_network(networks: Mapping[str, Network], branch: Branch) -> Network:
    """The network of a branch, as it is called; InputError if it is not there."""
    if branch.network not in networks:
        raise InputError(
            f"guidance: need a network named {branch.network!r}, got "
            f"{sorted(networks)}. Pass networks={{{branch.network!r}: Network(...)}}."
        )
    return branch.change.around(networks[branch.network])


def find_condition(name: str, condition: str, step: Step) -> Any:
    """A named condition of the sampler; InputError, that begins with the method's
    `name`, if it is not there."""
    if condition not in step.conds:
        raise InputError(
            f"{name}: need a condition named {condition!r}, got {sorted(step.conds)}. "
            f"Pass conds={{{condition!r}: ...}}."
        )
    return step.conds[condition]
