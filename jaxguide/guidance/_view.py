"""What a transform sees at one step: predictions, the step, a key, its own numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxguide import paths
from jaxguide.guidance._base import Branch, Network, OwnedBranch, Step
from jaxguide.guidance._numbers import ANY, NATIVE
from jaxguide.paths import Array, Node


class Evaluated(NamedTuple):
    """A prediction, in the kind of the main network, and where it was made."""

    prediction: Array  # [B, *D]
    x: Array  # [B, *D]
    node: Node
    record: Any = None  # what the network recorded for a change that asks for it


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
            ValueError: if the sampler was given no key; `name` is that of the method.
        """
        if self._key is None:
            raise ValueError(
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
        prediction, x, node, _ = self._find(branch)
        if space in (ANY, NATIVE):
            return prediction
        return paths.convert(prediction, x, node, self.network.kind, space)

    def _find(self, branch: Branch) -> Evaluated:
        evaluated = self._evaluated.get(branch.owned_by(self._owner))
        if evaluated is None:
            raise ValueError(
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
