"""A sampling job: everything a config describes, built and checked before it runs."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxguide import models, samplers
from jaxguide.errors import InputError
from jaxguide.guidance import Chain, Cost, Network, rows_on
from jaxguide.models import Weights
from jaxguide.runtime import devices, values
from jaxguide.runtime.calls import lookup
from jaxguide.sample import build, config as sample_config
from jaxguide.sample.build import Adaptive
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.labels import parse_label, parse_labels
from jaxguide.samplers._generation import Prepared, prepare

Decode = Callable[[Any], Any]


class Given(NamedTuple):
    """The numbers of a column: an argument of its program, which then serves other
    scales, weights, seeds and labels too."""

    guidance: Prepared
    key: Any
    conds: dict[str, int]  # a label each


@dataclasses.dataclass(frozen=True)
class SampleJob:
    """Everything a config describes."""

    config: SampleConfig
    weights: Weights
    network: Network
    networks: dict[str, Network]
    columns: dict[str, Chain]
    sampler: samplers.Sampler | Adaptive
    grid: np.ndarray
    labels: list[int]
    conds: dict[str, int]
    decode: Decode | None  # latents [B, h, w, c] to images [B, H, W, C]

    def costs(self) -> dict[str, Cost]:
        """What every column takes per image, before it runs; none if adaptive."""
        if isinstance(self.sampler, Adaptive):
            return {}
        return {title: self.cost(chain) for title, chain in self.columns.items()}

    def cost(self, chain: Chain) -> Cost:
        """What a chain takes per image."""
        return samplers.cost(
            self.network, chain, self.grid, self.fixed(), networks=self.networks
        )

    def fixed(self) -> samplers.Sampler:
        """The sampler, which has to walk the grid.

        Raises:
            InputError: if it is adaptive.
        """
        if isinstance(self.sampler, Adaptive):
            raise InputError(
                "sample: need a sampler that walks the grid, got "
                f"sampler={self.config.sampler!r}. Use 'heun'."
            )
        return self.sampler

    def given(self, chain: Chain) -> Given | None:
        """What a program is given of a chain; None for an adaptive solver, in whose
        program the chain is a constant: its windows cut the interval."""
        if isinstance(self.sampler, Adaptive):
            return None
        prepared = prepare(chain, self.network.path, self.grid, self.sampler)
        return Given(prepared, jax.random.key(self.config.seed), self.conds)

    def describe(self) -> str:
        """What will run, for people."""
        model, config = self.weights.model, self.config
        size = "x".join(map(str, model.image_shape))
        adaptive = isinstance(self.sampler, Adaptive)
        steps = "" if adaptive else f", {config.num_steps} steps"
        grid = "no grid" if adaptive else f"grid {config.grid}"
        lines = [
            f"model    {config.checkpoint}: DiT width {model.width} depth "
            f"{model.depth} patch {model.patch}, {size}, predicts {self.weights.kind}",
            f"devices  {devices.summary()}; computes in {config.dtype} (dtype)",
            f"path     {self.weights.path}; {grid}; sampler {config.sampler}{steps}",
            f"images   {self._images()}; seed {config.seed}",
        ]
        costs = self.costs()
        for title in self.columns:
            cost = costs.get(title, "NFE not known before, counted")
            lines.append(f"column   {title}: {cost}")
        return "\n".join(lines)

    def _images(self) -> str:
        config, classes = self.config, len(self.labels)
        if config.num_samples:
            return f"{config.num_samples} of {classes} classes, {config.label_order}"
        count = classes * config.per_class
        return f"{count} per column: {classes} classes x {config.per_class}"


def build_job(config: SampleConfig) -> SampleJob:
    """Builds all that the config names.

    Raises:
        InputError: for anything wrong in the config, with the fix.
    """
    values.check(config, "sample")
    parse_batched(config.batched)
    lookup("label_order", config.label_order, dict.fromkeys(sample_config.LABEL_ORDERS))
    lookup("rounding", config.rounding, dict.fromkeys(sample_config.ROUNDINGS))
    lookup("parallel", config.parallel, dict.fromkeys(sample_config.PARALLEL))
    if config.num_samples and config.parallel == "branches":
        raise InputError(
            "sample: need parallel 'data' or 'fsdp' for a set of samples, got "
            "parallel='branches'. It is for pictures of few images."
        )
    dtype = devices.computing_dtype("sample", config.dtype)
    # From here on the name of the dtype itself, which is what a record has to say.
    config = dataclasses.replace(config, dtype=dtype)
    columns = build.build_columns(config)
    sampler = build.parse_sampler(config.sampler)
    named = {"rows": config.batch_size, "parallel": config.parallel}
    weights = build.build_weights(config.checkpoint, config.dtype, **named)
    build.check_learnt_scale(config, weights)
    network = build.build_network(weights, config.learnt_scale)
    networks = {}
    if config.weak_checkpoint:
        weak = build.build_weights(config.weak_checkpoint, config.dtype, **named)
        networks["weak"] = build.build_network(weak, config.learnt_scale)
    names = weights.class_names
    conds = {"null": weights.model.null_label}
    for cond in ("negative", "also"):
        conds[cond] = parse_label(cond, getattr(config, cond), names)
    return SampleJob(
        config,
        weights,
        network,
        networks,
        {
            title: build.with_channels(chain, config, weights)
            for title, chain in columns.items()
        },
        sampler,
        build.build_grid(config, network.path),
        parse_labels(config.labels, names),
        conds,
        build.build_decode(config, weights),
    )


def placed(job: SampleJob, mesh: Mesh) -> Any:
    """Network and networks where the programs of a job read them."""
    weights = job.network, job.networks
    if job.config.parallel == "fsdp":
        return devices.sharded(weights)
    return devices.copied(weights, mesh)


def make_mesh(job: SampleJob, size: int) -> Mesh:
    """The devices of this process for `size` images in one call.

    A program is traced under `jax.set_mesh` of it: networks then fetch what they need
    of weights that are cut, and kernels know how the batch is.
    """
    if job.config.parallel == "branches":
        ratios = [cost.nfe / cost.unguided_nfe for cost in job.costs().values()]
        return devices.branch_mesh(size, math.ceil(max(ratios, default=2)))
    return devices.local_mesh()


def draw(
    job: SampleJob,
    chain: Chain | Given,
    network: Network,
    networks: Any,
    labels: Any,
    numbers: Any,
    count: int = 1,
) -> tuple[Any, Any]:
    """Samples, as a traced part of a larger program.

    Args:
        job: whose settings count; its weights come as `network` and `networks`.
        chain: the guidance, then a constant of the program; or what `job.given` made
            of it, which may be an argument of the program.
        network, networks: those of the job, as arguments of the compiled program.
        labels, numbers: int32 [B].
        count: of the devices over which the compiler will cut the batch.

    Returns:
        `(x0, nfe)`: [B, H, W, C], and evaluations per image, int32 [B].
    """
    given = job.given(chain) if isinstance(chain, Chain) else chain
    if given is None:
        return _integrated(job, chain, network, networks, labels, numbers, count)
    noise, named = inputs(job, networks, labels, numbers, count, given)
    network = with_table(job, network, labels, named["conds"])
    x0 = samplers.generate(network, noise, labels, guidance=given.guidance, **named)
    cost = given.guidance.cost({"main": network, **networks})
    return x0, jnp.full(labels.shape, cost.nfe, jnp.int32)


def _integrated(
    job: SampleJob,
    chain: Any,
    network: Network,
    networks: Any,
    labels: Any,
    numbers: Any,
    count: int,
) -> tuple[Any, Any]:
    """`draw` by an adaptive solver; a constant chain, which cuts the interval."""
    from jaxguide.samplers.adaptive import integrate  # diffrax only where it is used

    assert isinstance(job.sampler, Adaptive)
    noise, named = inputs(job, networks, labels, numbers, count=count)
    solution = integrate(
        network,
        noise,
        labels,
        guidance=chain,
        **{name: named[name] for name in ("conds", "networks", "batched")},
        **dataclasses.asdict(job.sampler),
    )
    return solution.x, jnp.broadcast_to(solution.nfe, labels.shape)


def inputs(
    job: SampleJob,
    networks: Any,
    labels: Any,
    numbers: Any,
    count: int = 1,
    given: Given | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Initial noise, and the named arguments of `generate` besides the guidance.

    `count` is over how many devices the compiler will cut the batch.
    """
    key = jax.random.key(job.config.seed) if given is None else given.key
    keys = samplers.sample_keys(key, numbers)
    noise = samplers.initial_noise(keys, job.weights.model.image_shape)
    named = job.conds if given is None else given.conds
    conds = {name: jnp.full_like(labels, label) for name, label in named.items()}
    return noise, dict(
        grid=job.grid,
        sampler=job.sampler,
        conds=conds,
        networks=networks,
        key=key,
        sample_keys=keys,
        batched=_batched(job.config.batched, count),
    )


def with_table(
    job: SampleJob, network: Network, labels: Any, conds: Mapping[str, Any]
) -> Network:
    """The network of a job, its modulations computed before the first step where that
    is faster.

    Args:
        job: whose sampler walks its grid.
        network: its main one, as an argument of the compiled program.
        labels, conds: int32 [B], all that the network will see.
    """
    model, device = job.weights.model, jax.default_backend()
    few = models.few_rows(model, device, rows=len(labels))
    # The table reads the weights of all blocks at once, which need not fit.
    if not few or job.config.parallel == "fsdp":
        return network
    every = jnp.concatenate([labels, *(label[:1] for label in conds.values())])
    return build.tabulated(network, job.grid, job.fixed(), every)


def parse_batched(text: str) -> bool | int | None:
    """`batched` of a config as `generate` takes it.

    Raises:
        InputError: if it is neither a name nor a number of rows.
    """
    if text.isdecimal() and int(text):
        return int(text)
    return lookup("batched", text, sample_config.BATCHED)


def _batched(text: str, devices: int) -> bool | int:
    """The same for the devices of this process, which a program cannot know."""
    batched = parse_batched(text)
    if batched is None:
        batched = rows_on(jax.local_devices()[0].platform) or False
    # A limit is on rows per device; the program sees those of all.
    return batched if isinstance(batched, bool) else batched * devices
