"""Training on several devices: one interface, two ways to lay out the state.

`Pmap` keeps a copy of the state on every device and averages the gradients; `Fsdp`
cuts parameters, their averages and the optimizer state over the devices. In both a
step sees one batch that is cut over all devices of all processes, and draws for every
example what one device would draw.

Checkpoints and pictures meet the state in one form, the *saved* one: a tree of arrays
of their plain shapes, placed on the mesh of all devices. So a run may go on under
another strategy and on another number of devices.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxguide.errors import InputError
from jaxguide.runtime.devices import SHARDS, cut

REPLICAS = "replicas"
EVERYWHERE = PartitionSpec()

MakeState = Callable[[Array], Any]
StepFunction = Callable[[Any, Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step for many devices: `(state, batch) -> (state, metrics)`.

    The metrics are taken from the first device of this process. The networks in the
    step see `mesh`, and fetch what they need of parameters that are cut over it.
    """

    step: Any
    mesh: Mesh | None = None

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        with self._seen():
            state, report = self.step(state, batch)
        # Left on the device: to read the metrics here would wait for the step.
        return state, jax.tree.map(lambda leaf: leaf.addressable_data(0), report)

    def lower(self, state: Any, batch: Any) -> Any:
        """The step lowered, as by `jax.jit(...).lower`."""
        with self._seen():
            return self.step.lower(state, batch)

    def export(self, state: Any, batch: Any, *, platforms: list[str]) -> Any:
        """The step lowered for other platforms, as by `jax.export.export`."""
        with self._seen():
            program = jax.jit(self.step)
            return jax.export.export(program, platforms=platforms)(state, batch)

    def _seen(self) -> Any:
        return jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext()


class Strategy(Protocol):
    """How a training state is laid out over devices.

    Attributes:
        mesh: of all devices of all processes.
        axis: what `make_train_step` gets as `axis`.
    """

    @property
    def mesh(self) -> Mesh: ...

    @property
    def axis(self) -> str | None: ...

    def spec(self, path: tuple, leaf: Any) -> PartitionSpec:
        """How a leaf of the saved state is cut, from its place in the tree."""
        ...

    def compile(self, train_step: StepFunction, state: Any) -> Compiled:
        """The step for many devices; it overwrites the state that it is given.

        The metrics come back whole, on a device of this process, without waiting.
        `state` shows shapes and places; it may be a tree of `jax.ShapeDtypeStruct`.
        """
        ...

    def feed(self, batch: Any) -> Any:
        """This process's share of a batch, on its devices."""
        ...

    def saved(self, state: Any) -> Any:
        """The state in its saved form."""
        ...

    def loaded(self, saved: Any) -> Any:
        """The state that `compile`'s step takes, from its saved form."""
        ...


@dataclasses.dataclass(frozen=True)
class Fsdp:
    """Parameters, averages and optimizer state are cut over the devices.

    Every device holds a part of every large array, fetches the rest of it when it is
    needed, block by block, and computes its part of the batch.

    Args:
        devices: to use, in the order of the batch.
        shards: devices over which one copy of the state is cut; divides their number.
            0 is all of them. Fewer leave copies between which only gradients travel.

    Raises:
        InputError: if `shards` does not divide the number of devices.
    """

    devices: tuple[Any, ...]
    shards: int = 0

    def __post_init__(self):
        if self.shards < 0 or len(self.devices) % (self.shards or 1):
            raise InputError(
                f"Fsdp: need shards that divide {len(self.devices)} devices, got "
                f"shards={self.shards!r}. 0 cuts over all of them."
            )

    @property
    def axis(self) -> None:
        """None: the step is written for the whole batch."""
        return None

    @property
    def mesh(self) -> Mesh:
        """[replicas, shards]."""
        # Rows of neighbours: the most traffic, parameters at every block, stays within
        # a row. Auto: XLA lays out whatever the networks say nothing about.
        shards = self.shards or len(self.devices)
        grid = np.array(self.devices).reshape(-1, shards)
        return Mesh(grid, (REPLICAS, SHARDS), axis_types=(AxisType.Auto,) * 2)

    def spec(self, path: tuple, leaf: Any) -> PartitionSpec:
        """See `Strategy`; the rule is `runtime.devices.cut`."""
        return cut(path, leaf.shape, self.mesh.shape[SHARDS])

    def compile(self, train_step: StepFunction, state: Any) -> Compiled:
        """See `Strategy`."""
        # The new state lies where the old one did, whose memory it takes over.
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        whole = NamedSharding(self.mesh, EVERYWHERE)
        return Compiled(
            jax.jit(
                train_step,
                donate_argnums=0,
                in_shardings=(places, self._rows),
                out_shardings=(places, whole),
            ),
            self.mesh,
        )

    @property
    def _rows(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec((REPLICAS, SHARDS)))

    def feed(self, batch: Any) -> Any:
        """See `Strategy`."""
        put = functools.partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(put, batch)

    def saved(self, state: Any) -> Any:
        """The state itself."""
        return state

    def loaded(self, saved: Any) -> Any:
        """The saved state itself."""
        return saved


@dataclasses.dataclass(frozen=True)
class Pmap:
    """Every device holds the whole state, with a leading axis over the devices.

    Args:
        devices: to use, in the order of the batch.
    """

    devices: tuple[Any, ...]

    @property
    def axis(self) -> str:
        """The axis over which the step averages its gradients."""
        return REPLICAS

    @property
    def mesh(self) -> Mesh:
        """[replicas]."""
        return Mesh(np.array(self.devices), (REPLICAS,), axis_types=(AxisType.Auto,))

    @property
    def _local(self) -> NamedSharding:
        """Of the arrays that `jax.pmap` sees: one row per device of this process."""
        return NamedSharding(self.mesh.local_mesh, PartitionSpec(REPLICAS))

    def spec(self, path: tuple, leaf: Any) -> PartitionSpec:
        """See `Strategy`; every leaf is whole everywhere."""
        del path, leaf
        return EVERYWHERE

    def compile(self, train_step: StepFunction, state: Any) -> Compiled:
        """See `Strategy`."""
        del state
        return Compiled(
            jax.pmap(
                train_step,
                axis_name=REPLICAS,
                out_axes=(0, None),  # metrics are equal everywhere, after a mean
                donate_argnums=0,
                devices=self.devices,
            )
        )

    def feed(self, batch: Any) -> Any:
        """See `Strategy`; [B, ...] becomes [devices, B / devices, ...]."""
        count = self.mesh.local_mesh.size

        def put(rows: np.ndarray) -> Array:
            # In order: `train_step` takes an example's place from its device's index.
            parts = rows.reshape(count, len(rows) // count, *rows.shape[1:])
            return jax.device_put(parts, self._local)

        return jax.tree.map(put, batch)

    def saved(self, state: Any) -> Any:
        """See `Strategy`; the copies are one array that is whole on every device."""
        place = NamedSharding(self.mesh, EVERYWHERE)

        def merge(leaf: Array) -> Array:
            copies = [shard.data[0] for shard in leaf.addressable_shards]
            return _from_parts(leaf.shape[1:], place, copies)

        return jax.tree.map(merge, state)

    def loaded(self, saved: Any) -> Any:
        """See `Strategy`."""

        def stack(leaf: Array) -> Array:
            copies = [shard.data[None] for shard in leaf.addressable_shards]
            return _from_parts((len(copies), *leaf.shape), self._local, copies)

        return jax.tree.map(stack, saved)


def abstract(strategy: Strategy, make_state: MakeState, key: Array) -> Any:
    """Shapes and places of the saved state of `make_state(key)`; computes nothing."""

    def describe(path: tuple, leaf: Any) -> jax.ShapeDtypeStruct:
        place = NamedSharding(strategy.mesh, strategy.spec(path, leaf))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    shapes = jax.eval_shape(make_state, key)
    return jax.tree_util.tree_map_with_path(describe, shapes)


def init(strategy: Strategy, make_state: MakeState, key: Array) -> Any:
    """`make_state(key)`, each device making only the part that it will hold."""
    like = abstract(strategy, make_state, key)
    places = jax.tree.map(lambda leaf: leaf.sharding, like)
    return strategy.loaded(jax.jit(make_state, out_shardings=places)(key))


def scalars(strategy: Strategy, numbers: dict[str, float]) -> dict[str, Array]:
    """Numbers as float32 leaves of a state."""
    place = NamedSharding(strategy.mesh, EVERYWHERE)

    def put(number: float) -> Array:
        # From every process's own copy: device_put would compare it across processes.
        return jax.make_array_from_callback((), place, lambda _: np.float32(number))

    return strategy.loaded({name: put(number) for name, number in numbers.items()})


def whole(tree: Any) -> Any:
    """Arrays of a saved state, each in full on one device of this process.

    Every process has to call it, since each holds parts that the others need.
    """

    def fetch(leaf: Array) -> Array:
        place = leaf.sharding
        if isinstance(place, NamedSharding) and not place.is_fully_replicated:
            leaf = jax.device_put(leaf, NamedSharding(place.mesh, EVERYWHERE))
        return leaf.addressable_data(0)

    return jax.tree.map(fetch, tree)


def all_devices() -> tuple[Any, ...]:
    """The devices of all processes, those of one process side by side.

    So the share of a batch that a process reads is the part that its devices compute.
    """
    return tuple(sorted(jax.devices(), key=lambda d: (d.process_index, d.id)))


def one_device() -> Fsdp:
    """The strategy of a run on one device of this process."""
    return Fsdp(tuple(jax.local_devices()[:1]))


def check_batch(strategy: Strategy, batch_size: int, accumulate: int) -> None:
    """Raises an InputError unless a batch can be cut over devices and micro-batches."""
    devices = strategy.mesh.size
    if batch_size % (devices * accumulate):
        raise InputError(
            "parallel: need batch_size a multiple of devices * accumulate = "
            f"{devices} * {accumulate}, got batch_size={batch_size!r}. "
            "Change batch_size or accumulate."
        )


def _from_parts(shape: tuple, place: NamedSharding, parts: list[Array]) -> Array:
    return jax.make_array_from_single_device_arrays(shape, place, parts)
