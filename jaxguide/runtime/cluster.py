"""Where a process runs, and which others run with it.

`find` reads the environment of the process, and on a TPU VM the metadata server of
Google Cloud. It touches neither JAX nor the other processes.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from jaxguide.errors import InputError

# Any free one that all processes agree on.
PORT = 8476
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"


@dataclasses.dataclass(frozen=True)
class Place:
    """One process among several.

    Attributes:
        name: of what has given it, for people.
        coordinator: "address:port" of process 0.
        count: processes in all.
        index: number of this one, from 0.
        devices: numbers of the devices of its host that it uses; None is all.
    """

    name: str
    coordinator: str
    count: int
    index: int
    devices: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return (
            f"hosts: process {self.index} of {self.count}, found by {self.name}, "
            f"coordinator {self.coordinator}"
        )


def from_flags(coordinator: str, count: int, index: int) -> Place:
    """The place that the flags of a command line describe.

    Raises:
        InputError: if the address has no port, or the numbers do not fit.
    """
    address, colon, port = coordinator.rpartition(":")
    if not (address and colon and is_port(port)):
        raise InputError(
            f"hosts: need ADDRESS:PORT of process 0, got coordinator={coordinator!r}. "
            f"Write --coordinator 10.0.0.1:{PORT}, the same for every process."
        )
    check_numbers(count, index)
    return Place("flags", coordinator, count, index)


def is_port(text: str) -> bool:
    """Whether a text is the number of a port."""
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 0 < int(text) < 2**16


def check_numbers(count: int, index: int) -> None:
    """Raises InputError unless `index` is one of `count` processes."""
    if not 0 <= index < count:
        raise InputError(
            "hosts: need 0 <= process_id < num_processes, got "
            f"process_id={index}, num_processes={count}. Give every process its own "
            "number, and all of them the same num_processes."
        )


def attribute(name: str) -> str | None:
    """What Google Cloud's metadata server says of this VM; None where there is none."""
    request = urllib.request.Request(
        f"{_METADATA}/{name}", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


def has_tpu() -> bool:
    """Whether this host has devices as those of TPU chips."""
    devices = Path("/dev")
    return any(devices.glob("accel[0-9]*")) or any(devices.glob("vfio/[0-9]*"))


def find(
    environ: Mapping[str, str] = os.environ,
    attribute: Callable[[str], str | None] = attribute,
    host: Callable[[], str] = socket.getfqdn,
    has_tpu: Callable[[], bool] = has_tpu,
) -> Place | None:
    """The place of this process; None if it runs alone.

    Args:
        environ: of the process.
        attribute: reads one from the metadata server.
        host: full name of this host.
        has_tpu: whether there are TPU chips here.

    Raises:
        InputError: if the environment contradicts itself.
    """
    place = _tpu_pod(environ, attribute, has_tpu)
    place = place or _slurm(environ) or _kubernetes(environ, host)
    if place is not None:
        check_numbers(place.count, place.index)
    return place


def _tpu_pod(
    environ: Mapping[str, str],
    attribute: Callable[[str], str | None],
    has_tpu: Callable[[], bool],
) -> Place | None:
    """A host of a TPU slice, or of several slices; GKE sets the environment."""
    if "tpu" not in (environ.get("JAX_PLATFORMS") or "tpu"):
        return None
    names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if names:
        title, hosts = "TPU on GKE", [name.split(":")[0] for name in names.split(",")]
        index, more = _number(environ, "TPU_WORKER_ID", 0), environ
    elif has_tpu() and not environ.get("TPU_SKIP_MDS_QUERY"):
        title, hosts = "TPU VM", _endpoints(attribute("worker-network-endpoints"))
        said = {"agent-worker-number": attribute("agent-worker-number") or ""}
        index = _number(said, "agent-worker-number", 0) if len(hosts) > 1 else 0
        more = {**_settings(attribute("tpu-env") or ""), **environ} if hosts else {}
    else:
        return None
    slices = _number(more, "MEGASCALE_NUM_SLICES", 1)
    index += _number(more, "MEGASCALE_SLICE_ID", 0) * len(hosts)
    count = len(hosts) * slices
    if count < 2:
        return None
    first = (more.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return Place(title, f"{first}:{PORT}", count, index)


def _endpoints(text: str | None) -> list[str]:
    """Addresses of all hosts of a slice: "a,b", or "name:number:a,name:number:b"."""
    return [entry.split(":")[-1] for entry in (text or "").split(",") if entry]


def _settings(text: str) -> dict[str, str]:
    """Lines such as `MEGASCALE_NUM_SLICES: '2'`."""
    return {name: value for name, value in re.findall(r"(\w+): *'([^']*)'", text)}


def _slurm(environ: Mapping[str, str]) -> Place | None:
    """A task that `srun` has started with others; the batch script itself is alone."""
    count = _number(environ, "SLURM_STEP_NUM_TASKS", 1)
    if count < 2:
        return None
    # "gpu[03-04,07],cpu1" begins with gpu03.
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    first = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes).split(",")[0]
    if not re.fullmatch(r"[\w.-]+", first):
        raise _contradiction("SLURM_STEP_NODELIST", "a list of nodes", nodes)
    steps = _number(environ, "SLURM_JOB_ID") + _number(environ, "SLURM_STEP_ID", 0)
    port = 61440 + steps % 4096  # two jobs may share a node
    index = _number(environ, "SLURM_PROCID")
    return Place("Slurm", f"{first}:{port}", count, index, _slurm_devices(environ))


def _number(environ: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    """The whole number that a variable holds; `otherwise` if it is missing or empty."""
    text = environ.get(name, "").strip()
    if not text and otherwise is not None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise _contradiction(name, "a whole number", text)
    return int(text)


def _contradiction(name: str, wanted: str, text: str) -> InputError:
    return InputError(
        f"hosts: need {wanted} in the variable {name}, as the system of the cluster "
        f"sets it, got {name}={text!r}. Repair it, or start with --num_processes 1 to "
        "run alone."
    )


def _slurm_devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """One device per task where a node has several tasks, unless Slurm hides others."""
    tasks = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    visible = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if tasks is None or int(tasks[0]) < 2 or len(visible) < 2 and visible[0]:
        return None
    return (_number(environ, "SLURM_LOCALID"),)


def _kubernetes(environ: Mapping[str, str], host: Callable[[], str]) -> Place | None:
    """A pod of an indexed Job or a JobSet whose manifest sets NUM_PROCESSES."""
    index = environ.get("JOB_COMPLETION_INDEX")
    if index is None or _number(environ, "NUM_PROCESSES", 1) < 2:
        return None
    # Pods are called NAME-INDEX, in the subdomain of the job.
    name, dot, domain = host().partition(".")
    if not dot or not name.endswith(f"-{index}"):
        raise InputError(
            f"hosts: need a pod called NAME-{index}.SUBDOMAIN, got {host()!r}. Set its "
            "subdomain to a headless service, or start it by a JobSet."
        )
    first = f"{name[: -len(index)]}0.{domain}"
    count = _number(environ, "NUM_PROCESSES")
    index = _number(environ, "JOB_COMPLETION_INDEX")
    return Place("Kubernetes", f"{first}:{PORT}", count, index)
