"""Branches of a step on different devices, for fewer images than devices.

A caller that has traced its program under `jax.set_mesh` of a mesh with the axis
"branch" gets it: devices along that axis hold the same images, each evaluates some of
the branches, and one sum over the axis gives every device all predictions. Along the
other axes the batch is cut as anywhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxguide.guidance._base import OwnedBranch
from jaxguide.guidance._network import Network
from jaxguide.guidance._plan import branch_flops
from jaxguide.paths import Array

AXIS = "branch"

# Branches -> what each returned, a pytree.
Run = Callable[[list[OwnedBranch]], list[Any]]


def devices_of_branches() -> int:
    """How many devices there are for the branches of a step."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[AXIS] if kinds.get(AXIS) == AxisType.Auto else 1


def shares(
    networks: Mapping[str, Network], ones: list[OwnedBranch], count: int
) -> list[list[OwnedBranch]]:
    """Branches for each of at most `count` devices, of about equal FLOPs."""
    flops = np.asarray([branch_flops(networks, one.branch) for one in ones])
    if np.isnan(flops).any():
        flops = np.ones(len(ones))
    parts: list[list[OwnedBranch]] = [[] for _ in range(min(count, len(ones)))]
    load = np.zeros(len(parts))
    # The costliest first, each to the device that has least to do.
    for index in np.argsort(-flops, kind="stable"):
        least = int(load.argmin())
        parts[least].append(ones[index])
        load[least] += flops[index]
    return parts


def on_devices(parts: list[list[OwnedBranch]], run: Run) -> list[list[Any]]:
    """`run(part)` of every part, each on a device of its own, known to all of them."""
    shapes = [jax.eval_shape(lambda part=part: run(part)) for part in parts]

    def case(mine: int) -> Callable[[], list[list[Any]]]:
        return lambda: [
            run(part) if place == mine else jax.tree.map(_nothing, shapes[place])
            for place, part in enumerate(parts)
        ]

    def local(place: Array) -> list[list[Any]]:
        # A device that is left over has the last case, in which nothing is called.
        return _summed(lax.switch(place[0], [case(i) for i in range(len(parts) + 1)]))

    count = devices_of_branches()
    spread = jax.shard_map(
        local,
        in_specs=PartitionSpec(AXIS),
        out_specs=PartitionSpec(),
        axis_names={AXIS},
        check_vma=False,
    )
    return spread(jnp.arange(count, dtype=jnp.int32))


def _nothing(shape: Any) -> Array:
    """What changes no bit of the one summand that is not it: -0, as 0 + -0 is 0."""
    return jnp.full(shape.shape, -0.0, shape.dtype)


def _summed(tree: Any) -> Any:
    """Sums over the devices of branches; one for all leaves of one kind [B, ...]."""
    leaves, structure = jax.tree.flatten(tree)
    alike: dict[Any, list[int]] = {}
    for index, leaf in enumerate(leaves):
        alike.setdefault((leaf.dtype, leaf.shape[:1]), []).append(index)
    for (_, rows), places in alike.items():
        flat = [leaves[index].reshape(*rows, -1) for index in places]
        total = lax.psum(jnp.concatenate(flat, axis=-1), AXIS)
        edges = np.cumsum([one.shape[-1] for one in flat])[:-1]
        parts = jnp.split(total, edges, axis=-1)
        for index, part in zip(places, parts, strict=True):
            leaves[index] = part.reshape(leaves[index].shape)
    return jax.tree.unflatten(structure, leaves)
