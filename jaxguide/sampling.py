"""A whole sampling job: from a config to images, their price and their timings."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxguide import config_sampling, samplers
from jaxguide.checkpoints import Weights
from jaxguide.config_sampling import SampleConfig
from jaxguide.guidance import Chain, Cost, Network
from jaxguide.names import lookup
from jaxguide.progress import Progress
from jaxguide.version import __version__


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything a config describes, built and checked before anything runs."""

    config: SampleConfig
    weights: Weights
    network: Network
    networks: dict[str, Network]
    columns: dict[str, Chain]
    sampler: samplers.Sampler
    grid: np.ndarray
    labels: list[int]
    conds: dict[str, int]

    def costs(self) -> dict[str, Cost]:
        """What every column takes per image, before it runs."""
        return {
            title: samplers.cost(
                self.network, chain, self.grid, self.sampler, networks=self.networks
            )
            for title, chain in self.columns.items()
        }

    def describe(self) -> str:
        """What will run, for people."""
        model = self.weights.model
        size = "x".join(map(str, model.image_shape))
        count = len(self.labels) * self.config.per_class
        lines = [
            f"model    {self.config.checkpoint}: DiT width {model.width} depth "
            f"{model.depth} patch {model.patch}, {size}, predicts {self.weights.kind}",
            f"path     {self.weights.path}; grid {self.config.grid}; sampler "
            f"{self.config.sampler}, {self.config.num_steps} steps",
            f"images   {count} per column: {len(self.labels)} classes x "
            f"{self.config.per_class}; seed {self.config.seed}",
        ]
        for title, cost in self.costs().items():
            lines.append(f"column   {title}: {cost}")
        return "\n".join(lines)


class Column(NamedTuple):
    """One column group of the picture."""

    images: np.ndarray  # [classes, per_class, H, W, C] in about [-1, 1]
    compile_seconds: float
    run_seconds: float


def build_job(config: SampleConfig) -> Job:
    """Builds all that the config names.

    Raises:
        ValueError: for anything wrong in the config, with the fix.
    """
    for name, least in (("per_class", 1), ("batch_size", 1), ("zoom", 1)):
        if getattr(config, name) < least:
            raise ValueError(
                f"sample: need {name} >= {least}, got {name}={getattr(config, name)!r}."
            )
    lookup("batched", config.batched, config_sampling.BATCHED)
    columns = config_sampling.build_columns(config)
    sampler = config_sampling.parse_sampler(config.sampler)
    weights = config_sampling.build_weights(config.checkpoint, config.dtype)
    network = config_sampling.build_network(weights, config.learnt_scale)
    networks = {}
    if config.weak_checkpoint:
        weak = config_sampling.build_weights(config.weak_checkpoint, config.dtype)
        networks["weak"] = config_sampling.build_network(weak, config.learnt_scale)
    names = weights.class_names
    conds = {"null": weights.model.null_label}
    for cond in ("negative", "also"):
        conds[cond] = config_sampling.parse_labels(getattr(config, cond), names)[0]
    return Job(
        config,
        weights,
        network,
        networks,
        columns,
        sampler,
        config_sampling.build_grid(config, network.path),
        config_sampling.parse_labels(config.labels, names),
        conds,
    )


def run(job: Job) -> Iterator[tuple[str, Column]]:
    """Samples the columns one after another, all from the same noise.

    Yields:
        (title, column).
    """
    labels, numbers = images(job)
    for title, chain in job.columns.items():
        found, compiled, ran = _sample(job, chain, title, labels, numbers)
        yield title, Column(by_class(job, found), compiled, ran)


def images(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and numbers [N] of all images, class by class."""
    per_class = job.config.per_class
    labels = np.repeat(np.asarray(job.labels, np.int32), per_class)
    # A sample's number depends on its class and place in the row, not on which other
    # classes are drawn.
    numbers = labels * 100_000 + np.tile(np.arange(per_class), len(job.labels))
    return labels, numbers.astype(np.int32)


def by_class(job: Job, found: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as [classes, per_class, H, W, C]."""
    return found.reshape(len(job.labels), job.config.per_class, *found.shape[1:])


def _sample(
    job: Job, chain: Chain, title: str, labels: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """(images [N, H, W, C], seconds to compile, seconds to run) of one chain."""
    size = batch_size(job.config.batch_size, len(labels))
    progress = Progress(title, -(-len(labels) // size) * job.config.num_steps)
    start = time.perf_counter()
    sample = _compile(job, chain, size, progress)
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    found = in_batches(job, sample, labels, numbers, size)
    ran = time.perf_counter() - start
    progress.close()
    return found, compiled, ran


def in_batches(
    job: Job, sample: Callable, labels: np.ndarray, numbers: np.ndarray, size: int
) -> np.ndarray:
    """Images [N, H, W, C] of `sample(network, networks, labels, numbers)`."""
    found = []
    for first in range(0, len(labels), size):
        index = np.minimum(np.arange(first, first + size), len(labels) - 1)
        args = shard((labels[index], numbers[index]))
        found.append(np.asarray(sample(job.network, job.networks, *args)))
    return np.concatenate(found)[: len(labels)]


def batch_size(wanted: int, count: int) -> int:
    """At most `wanted` and `count`, rounded up to a multiple of the devices."""
    devices = jax.device_count()
    return -(-min(wanted, count) // devices) * devices


def _compile(job: Job, chain: Chain, size: int, progress: Progress) -> Any:
    """The compiled sampler of one chain: (network, networks, labels, numbers)."""

    def sample(network: Network, networks: Any, labels: Any, numbers: Any) -> Any:
        noise, named = inputs(job, networks, labels, numbers)
        named["progress"] = progress.step
        return samplers.generate(network, noise, labels, guidance=chain, **named)

    example = shard((np.zeros(size, np.int32), np.zeros(size, np.int32)))
    return jax.jit(sample).lower(job.network, job.networks, *example).compile()


def inputs(
    job: Job, networks: Any, labels: Any, numbers: Any
) -> tuple[Any, dict[str, Any]]:
    """Initial noise, and the named arguments of `generate` besides the guidance."""
    key = jax.random.key(job.config.seed)
    keys = samplers.sample_keys(key, numbers)
    noise = samplers.initial_noise(keys, job.weights.model.image_shape)
    conds = {name: jnp.full_like(labels, label) for name, label in job.conds.items()}
    return noise, dict(
        grid=job.grid,
        sampler=job.sampler,
        conds=conds,
        networks=networks,
        key=key,
        keys=keys,
        batched=config_sampling.BATCHED[job.config.batched],
    )


def environment() -> dict[str, Any]:
    """Devices and versions, for the record of a run."""
    return {
        "devices": [str(device.device_kind) for device in jax.devices()],
        "versions": {"jaxguide": __version__, "jax": jax.__version__},
    }


def as_json(record: Any) -> str:
    """The record of a run; functions by name, arrays as lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | jax.Array):
            return value.tolist()
        name = getattr(value, "__qualname__", None)
        return f"{value.__module__}:{name}" if name else repr(value)

    return json.dumps(record, indent=2, default=plain) + "\n"


def shard(arrays: Any) -> Any:
    """Spreads the batch axis over all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data")))
