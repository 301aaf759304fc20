"""Several hosts: one process each, all running the same program."""

from __future__ import annotations

import jax


def start(coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the other processes of a run; call it before anything else touches JAX.

    Args:
        coordinator: "" for a run of one process; "auto" where JAX can find the others
            by itself (TPU pods, Slurm, Open MPI, Kubernetes); else "address:port" of
            process 0, the same on every host.
        count: processes in all, with an address.
        index: number of this process, from 0, with an address.

    Raises:
        ValueError: if the numbers do not fit the coordinator.
    """
    if not coordinator:
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    address, colon, port = coordinator.rpartition(":")
    if not (address and colon and port.isdigit()):
        raise ValueError(
            "hosts: need coordinator '', 'auto' or 'address:port', got "
            f"coordinator={coordinator!r}. Use the address of process 0."
        )
    if not 0 <= index < count:
        raise ValueError(
            f"hosts: need 0 <= index < count, got index={index!r}, count={count!r}. "
            "Give every process its own index."
        )
    jax.distributed.initialize(coordinator, num_processes=count, process_id=index)


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
