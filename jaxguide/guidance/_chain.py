"""`chain`: several transforms as one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance._base import Guided, OwnedBranch, View
from jaxguide.guidance._checks import shown, uncalled
from jaxguide.guidance._live import Live, apply_part, settled
from jaxguide.guidance._network import Network
from jaxguide.guidance._schedule import Schedule, is_schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, ArrayLike


@dataclasses.dataclass(frozen=True)
class Chain:
    """Transforms applied left to right; itself neither nested nor a transform."""

    parts: tuple[Transform, ...] = ()

    def init(self, x: Array) -> tuple[Any, ...]:
        """The states of all parts; `x` is [B, *D]."""
        return tuple(part.init(x) for part in self.parts)

    def live(self, t: float, index: int = 0) -> tuple[bool, ...]:
        """Which parts need their branches in step `index` at host time `t`."""
        return tuple(bool(part.live(t, index)) for part in self.parts)

    def without_gates(self, live: tuple[bool, ...]) -> tuple[bool, ...]:
        """`live` with the parts False that can stop needing their branches."""
        return tuple(
            on and not part.gated for part, on in zip(self.parts, live, strict=True)
        )

    def open(self, state: tuple[Any, ...], live: tuple[Live, ...]) -> tuple[Live, ...]:
        """`live` with the gates of gated parts in it, known at run time only."""
        self._check_states(state)
        return tuple(
            on & part.gate(old) if part.gated and on is not False else on
            for part, old, on in zip(self.parts, state, live, strict=True)
        )

    def branches(
        self, network: Network, live: tuple[Live, ...]
    ) -> tuple[OwnedBranch, ...]:
        """Distinct branches of the live parts; those that are not shared have an
        owner."""
        return tuple(self.needs(network, live))

    def needs(
        self, network: Network, live: tuple[Live, ...]
    ) -> dict[OwnedBranch, tuple[Live, ...]]:
        """The branches, each with what its parts have in `live`, one of which must be
        True for it to be needed."""
        wanted: dict[OwnedBranch, tuple[Live, ...]] = {}
        for owner, (part, on) in enumerate(zip(self.parts, live, strict=True)):
            for branch in part.branches(network) if on is not False else ():
                one = branch.owned_by(owner)
                wanted[one] = (*wanted.get(one, ()), on)
        return wanted

    def at(self, t: ArrayLike, window_t: ArrayLike | None = None) -> "Chain":
        """This chain with every schedule as its number at time `t` [].

        Windows are judged at `window_t`, by default `t` itself.
        """
        return self._map(lambda one: Schedule(one.at(t, window_t)))

    # A scan slices all that it is given for every step. Schedules change from step to
    # step; the weights of an energy, say, do not, and must not be copied N times. So a
    # chain is cut in two for the scan, and put together again inside it.

    def on_grid(self, times: np.ndarray, window_times: np.ndarray) -> "Chain":
        """The schedules alone, each as its numbers at host times [N]; the rest of this
        chain, which no step changes, is None: see `constants`."""
        return self._map(
            lambda one: Schedule(one.on_grid(times, window_times)), lambda leaf: None
        )

    def without_shapes(self) -> "Chain":
        """This chain with constant schedules, to look at its structure alone: a
        function of noise time need not have a value at a time of our choice."""
        return self._map(lambda one: dataclasses.replace(one, shape=None, least=None))

    def constants(self) -> "Chain":
        """All but the schedules, which are None: weights of an energy, say."""
        return self._map(lambda one: None)

    def with_constants(self, constants: "Chain") -> "Chain":
        """The numbers of this chain (`on_grid`) and the `constants` in one."""
        return jax.tree.map(
            lambda number, constant: constant if number is None else number,
            self,
            constants,
            is_leaf=lambda leaf: leaf is None or is_schedule(leaf),
        )

    def _map(
        self,
        schedule: Callable[[Schedule], Any],
        other: Callable[[Any], Any] = lambda leaf: leaf,
    ) -> "Chain":
        """This chain with its schedules, and its other leaves, mapped."""
        # A schedule is a pytree itself; without `is_leaf` the map would go inside it.
        return jax.tree.map(
            lambda leaf: schedule(leaf) if is_schedule(leaf) else other(leaf),
            self,
            is_leaf=is_schedule,
        )

    def apply(
        self,
        guided: Guided,
        state: tuple[Any, ...],
        view: View,
        *,
        live: tuple[Live, ...],
    ) -> tuple[Guided, tuple[Any, ...]]:
        """Runs every part; parts that are not live only update their state."""
        self._check_states(state)
        states, coupled = [], guided.noise is not None
        # Also the parts that are not live: the memory of `sg_prev` must hold the step
        # before when its window opens.
        for owner, (part, old, on) in enumerate(
            zip(self.parts, state, live, strict=True)
        ):
            here = view.of(owner)
            guided, coupled, new = apply_part(part, on, guided, coupled, old, here)
            states.append(new)
        return settled(guided, coupled, view), tuple(states)

    def _check_states(self, state: tuple[Any, ...]) -> None:
        if len(state) != len(self.parts):
            raise InputError(
                f"chain: need {len(self.parts)} states, got {len(state)}. "
                "Pass the state made by `init` of this same chain."
            )


jax.tree_util.register_dataclass(Chain, data_fields=["parts"], meta_fields=[])


def _advice(part: Any) -> str:
    """What to write instead."""
    if isinstance(part, list | tuple):
        return " Pass them one by one: chain(*transforms)."
    name = uncalled(part)
    return f" Call it: {name}(...)." if name else ""


def chain(*parts: Transform | Chain) -> Chain:
    """Applies transforms left to right; `chain()` is the identity.

    Differences are all taken from the raw conditional prediction and added up, so
    linear transforms commute; maps of the running result (`rescale`) act on what stands
    to their left. Nested chains are flattened. A transform's random draws depend on its
    position alone: appending another one leaves them unchanged.

    Raises:
        InputError: if a part is not a transform, or a map of the running result stands
            before everything that it could map.

    >>> from jaxguide.guidance import cfg, sg_prev
    >>> len(chain(cfg(1.5), sg_prev(3.0)).parts)
    2
    """
    # Flat, so that the place of a transform is one number: it selects its state, its
    # key and the owner of its branches.
    flat: list[Transform] = []
    for part in parts:
        if isinstance(part, Chain):
            flat.extend(part.parts)
        elif isinstance(part, Transform):
            flat.append(part)
        else:
            raise InputError(
                f"chain: need transforms such as cfg(1.5), got {shown(part)}."
                + _advice(part)
            )
    for place, part in enumerate(flat):
        if not part.idle():
            break
        if later := [one for one in flat[place + 1 :] if not one.on_result]:
            raise InputError(
                f"chain: need {part.name} after what it maps, got it before "
                f"{later[0].name}, where it changes nothing. Write "
                f"chain({later[0].name}(...), {part.name}(...))."
            )
    return Chain(tuple(flat))


def check_acts(name: str, parts: Chain) -> Chain:
    """`parts`; refused if they only map the result of guidance, and there is none.

    Raises:
        InputError: beginning with `name`.
    """
    if parts.parts and all(part.idle() for part in parts.parts):
        raise InputError(
            f"{name}: need guidance for {parts.parts[0].name} to map, got it alone, "
            f"where it changes nothing. Write chain(cfg(...), {parts.parts[0].name}"
            "(...))."
        )
    return parts
