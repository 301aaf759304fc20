"""Which branches of a step share a forward pass: by their rows and by the device."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax import lax
from jax.core import Tracer

from jaxguide.errors import InputError
from jaxguide.guidance._base import Change, OwnedBranch, find_network
from jaxguide.guidance._checks import is_whole, shown
from jaxguide.guidance._network import Network

# More rows than any call has: branches share a call whatever its size.
ALL = 2**31 - 1
# The most rows in one call, by the platform that a program is compiled for. On a CPU
# separate calls were measured to be faster. On accelerators nothing was measured yet:
# for an H100 a model of its kernels is a tie, and one call has half as many kernels;
# for a v5e its compiler counts fewer cycles in two calls of 64 rows than in one of 128.
MOST_ROWS = {"cpu": 0, "cuda": ALL, "rocm": ALL, "tpu": 64}


def most_rows(name: str, batched: bool | int | None, arrays: Any) -> int | None:
    """`batched` as the most rows that one call has: 0 is one call per branch.

    Args:
        name: of the function that was called, for the message.
        batched: one call for all branches (True), one for each (False), or for as many
            as have so many rows together; None: as `MOST_ROWS` says.
        arrays: what the program is called with, which tells its device.

    Returns:
        The number; None if the device is not known yet, see `by_platform`.

    Raises:
        InputError: for anything else.
    """
    if batched is None:
        return _known_rows(arrays)
    if isinstance(batched, bool):
        return ALL if batched else 0
    if not is_whole(batched) or batched < 1:
        raise InputError(
            f"{name}: need batched True, False, None or a number of rows >= 1, got "
            f"batched={shown(batched)}. None chooses by the device."
        )
    return int(batched)


def rows_on(platform: str) -> int:
    """The most rows in one call on this platform, as a device calls it."""
    return MOST_ROWS.get("cuda" if platform == "gpu" else platform, ALL)


def _known_rows(arrays: Any) -> int | None:
    """What the device of these arrays takes; None if they are traced."""
    leaves = jax.tree.leaves(arrays)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return None
    for leaf in leaves:
        if isinstance(leaf, jax.Array):
            return rows_on(next(iter(leaf.devices())).platform)
    return rows_on(jax.default_backend())


def by_platform(
    most: int | None, split: Callable[[int], Any], run: Callable[[Any], Any]
) -> Any:
    """`run(split(most))`, for the device that the program is compiled for if None.

    A traced program may be compiled for another device than this host's. It then holds
    every way in which platforms differ until it is lowered, and one afterwards.
    """
    if most is not None:
        return run(split(most))
    ways, rest = {name: split(rows) for name, rows in MOST_ROWS.items()}, split(ALL)
    special = {
        name: lambda way=way: run(way) for name, way in ways.items() if way != rest
    }
    if not special:
        return run(rest)
    return lax.platform_dependent(default=lambda: run(rest), **special)


def groups(
    networks: Mapping[str, Network],
    ones: Iterable[OwnedBranch],
    most: int,
    rows: int,
    inputs: Callable[[OwnedBranch], Any] = lambda one: None,
) -> list[list[OwnedBranch]]:
    """Branches that share a call: those of one network that differ in inputs alone.

    A branch that changes the inside is a call of its own, so that the work that it
    leaves out (dropped blocks) is really saved.

    Args:
        networks: named networks.
        ones: branches whose inputs are known together.
        most: rows in one call; a branch with more is a call of its own.
        rows: of one branch, B.
        inputs: equal for branches whose inputs can be joined to one batch. Unknown when
            a program is planned.
    """
    sharing: dict[object, list[OwnedBranch]] = {}
    for one in ones:
        place = _place(networks, one), inputs(one)
        sharing.setdefault(place, []).append(one)
    most = max(1, most // max(1, rows))
    return [part for group in sharing.values() for part in _split(group, most)]


def _place(networks: Mapping[str, Network], one: OwnedBranch) -> object:
    """Equal for branches that may share a call."""
    name, change = one.branch.network, one.branch.change
    # A tap acts on the whole batch of its call, so it would change the rows of other
    # branches too. A pair of conditions is already two batches, and a network put
    # around another (crops) is not the one that the others call.
    taps = type(change).taps is not Change.taps
    around = find_network(networks, one.branch) is not networks[name]
    alone = taps or around or change.beside() is not None or one.branch.differentiable
    return one if alone else (name, change.second)


def _split(group: list[OwnedBranch], most: int) -> list[list[OwnedBranch]]:
    """Into as few parts as `most` branches in one allow, of nearly equal size."""
    parts = -(-len(group) // most)
    edges = [len(group) * i // parts for i in range(parts + 1)]
    return [group[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
