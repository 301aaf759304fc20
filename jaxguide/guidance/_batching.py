"""Which branches of a step share a forward pass."""

from collections.abc import Iterable, Mapping

from jaxguide.guidance._base import Change, OwnedBranch, find_network
from jaxguide.guidance._network import Network

# More rows than any call has: branches share a call whatever its size.
ALL = 2**31 - 1


def most_rows(batched: bool | int) -> int:
    """`batched` as the most rows that one call has: 0 for one call per branch."""
    return ALL if batched is True else int(batched)


def groups(
    networks: Mapping[str, Network], ones: Iterable[OwnedBranch], most: int, rows: int
) -> list[list[OwnedBranch]]:
    """Branches that share a call: those of one network that differ in inputs alone.

    A branch that changes the inside is a call of its own, so that the work that it
    leaves out (dropped blocks) is really saved.

    Args:
        networks: named networks.
        ones: branches whose inputs are known together.
        most: rows in one call; a branch with more is a call of its own.
        rows: of one branch, B.
    """
    sharing: dict[object, list[OwnedBranch]] = {}
    for one in ones:
        sharing.setdefault(_place(networks, one), []).append(one)
    most = max(1, most // rows)
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
