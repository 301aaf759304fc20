"""The processes of a run on several hosts, as a part of other configs."""

import dataclasses
from dataclasses import dataclass

from jaxguide.training import hosts


@dataclass
class HostsConfig:
    """The processes of a run on several hosts; see `training.hosts.start`.

    Args:
        coordinator: "" for one process, "auto", or "address:port" of process 0.
        count, index: with an address: processes in all, and the number of this one.
    """

    coordinator: str = ""
    count: int = 0
    index: int = -1


def share(config: HostsConfig) -> tuple[int, int]:
    """Joins the other processes; which part of work that needs no talk is this one's.

    Without a coordinator the count and index of the config stand: the processes then
    need no connection to each other.

    Returns:
        `(index, count)`.
    """
    hosts.start(**dataclasses.asdict(config))
    by_number = config.count and not config.coordinator
    return (config.index, config.count) if by_number else hosts.share()
