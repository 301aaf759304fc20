"""One guidance method: what it needs, and its two pure functions."""

from __future__ import annotations

from typing import Any

from jaxguide.guidance._base import Branch, Guided, View
from jaxguide.guidance._network import Network
from jaxguide.guidance._schedule import Schedule
from jaxguide.paths import Array


class Transform:
    """One guidance method: two pure functions, its branches, and when it is live.

    It is live in a step if its branches are evaluated there; in other steps it costs no
    evaluation, and `apply` only updates its state or uses what was saved.

    Subclasses are frozen dataclasses registered as pytrees (`pytree`): `Schedule`s and
    arrays are leaves, all else is static and hashable. Inside `apply` every schedule
    holds its number at this step, `self.weight.number`.

    Most methods need `branches`, `switches` and `change`; one that remembers overrides
    `init` and `apply`. A transform with `gated = True` also has `gate`.
    """

    name = "transform"  # of the method, for error messages
    on_result = False  # whether it maps the running result instead of adding to it
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

    def idle(self) -> bool:
        """Whether it is known to change nothing where all to its left changes nothing:
        true of maps that compare the running result with the raw prediction."""
        return False

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
