"""Several processes of one program: where they run, who they are, how they end.

The same command runs in every process, on a TPU pod, under Slurm, on Kubernetes, or
with numbers by hand; `cluster` finds out which it is. A run of one process needs none
of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Iterator

import jax

from jaxguide.errors import InputError
from jaxguide.runtime import cluster, exits, meeting
from jaxguide.runtime.cluster import Place
from jaxguide.runtime.peers import Peers

# Seconds to wait for the others; what schedules slowly may want more.
WAIT, MOST = 50.0, 1e6
# A broken computation is felt before it is known that a process is gone.
_NEWS = 5.0


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a run, seen from one of them.

    Attributes:
        index: of this process, from 0.
        count: of all.
        joined: whether they are connected; else they share out files by their numbers,
            and whoever ends last completes the work.
    """

    index: int = 0
    count: int = 1
    joined: bool = False

    @property
    def share(self) -> tuple[int, int]:
        """Which part of the work is this one's: `(index, count)`."""
        return self.index, self.count


ALONE = Hosts()


@contextlib.contextmanager
def join(
    coordinator: str = "",
    count: int = 0,
    index: int = -1,
    wait: float = WAIT,
    *,
    saves: bool = False,
    token: str = "0" * 16,
) -> Iterator[Hosts]:
    """The processes of this run, which end together; enter it before JAX is used.

    Without arguments it finds out where it runs. With `coordinator` the arguments say
    so; with `count` and `index` alone the processes need no connection. Of connected
    ones none ends well before all have; if one is gone or fails, every other one says
    so in a line and leaves.

    Args:
        coordinator: "address:port" of process 0, the same for all.
        count: processes in all; 1 is a run of one process, wherever it is.
        index: of this one, from 0.
        wait: seconds to wait for the others.
        saves: whether the program saves by itself after SIGTERM (`train.Stop`);
            otherwise the signal ends it.
        token: `greeting.token` of what all processes must have been given alike.

    Yields:
        The processes.

    Raises:
        InputError: if the arguments do not fit, a process does not come, or one was
            given another config.
    """
    if not 0 < wait <= MOST:
        raise InputError(
            f"hosts: need 0 < wait <= {MOST:g} seconds, got wait={wait!r}. "
            f"--wait {WAIT:g} is usual."
        )
    if count == 1 and index <= 0:
        yield ALONE
        return
    if count and not coordinator:
        cluster.check_numbers(count, index)
        yield Hosts(index, count)
        return
    if coordinator or index >= 0:
        place = cluster.from_flags(coordinator, count, index)
    else:
        place = cluster.find()
    if place is None:
        yield ALONE
        return
    print(place, flush=True)
    if hasattr(jax.config, "jax_enable_preemption_service"):  # newer than 0.7.2
        jax.config.update("jax_enable_preemption_service", saves)
    peers = _connect(place, wait, token)
    try:
        yield Hosts(place.index, place.count, joined=True)
    except BaseException as error:
        _end(peers, error)
        raise
    peers.close()


def news() -> None:
    """Waits a little if this process has lost another one: that is the better reason.

    `peers` says so, and ends this process.
    """
    if jax.distributed.is_initialized():
        time.sleep(_NEWS)


def _connect(place: Place, wait: float, token: str) -> Peers:
    """Meets the others and starts JAX with them."""
    peers, coordinator = meeting.meet(place, wait, token)
    jax.distributed.initialize(
        coordinator,
        num_processes=place.count,
        process_id=place.index,
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",  # found already
    )
    return peers


def _end(peers: Peers, error: BaseException) -> None:
    """Ends this process at once if it has failed; else waits for the others."""
    code = (error.code or 0) if isinstance(error, SystemExit) else 1
    if code in (0, exits.UNFINISHED, exits.INTERRUPTED):
        peers.close()
        return
    if isinstance(error, KeyboardInterrupt):
        code = exits.INTERRUPTED
    elif not isinstance(error, SystemExit) or not isinstance(code, int):
        code = 1
        time.sleep(_NEWS)  # `peers` ends this process if another one is the reason
        traceback.print_exception(error)
    peers.fail(code)
    sys.stdout.flush()
    os._exit(code)  # JAX would wait for the others at the end


def is_first() -> bool:
    """Whether this process prints, logs and writes pictures."""
    return jax.process_index() == 0


def share() -> tuple[int, int]:
    """Which part of every batch this process reads: `(index, count)`."""
    return jax.process_index(), jax.process_count()


def say(text: object) -> None:
    """Prints, in the first process."""
    if is_first():
        print(text, flush=True)
