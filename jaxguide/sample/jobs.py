"""A sampling job: everything a config describes, built and checked before it runs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import samplers
from jaxguide.errors import InputError
from jaxguide.guidance import Chain, Cost, Network, rows_on
from jaxguide.models import Weights
from jaxguide.runtime import devices, values
from jaxguide.runtime.calls import lookup
from jaxguide.sample import build, config as sample_config
from jaxguide.sample.build import Adaptive
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.labels import parse_label, parse_labels

Decode = Callable[[Any], Any]


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
    dtype = devices.computing_dtype("sample dtype", config.dtype)
    # From here on the name of the dtype itself, which is what a record has to say.
    config = dataclasses.replace(config, dtype=dtype)
    columns = build.build_columns(config)
    sampler = build.parse_sampler(config.sampler)
    rows = config.batch_size
    weights = build.build_weights(config.checkpoint, config.dtype, rows=rows)
    build.check_learnt_scale(config, weights)
    network = build.build_network(weights, config.learnt_scale)
    networks = {}
    if config.weak_checkpoint:
        weak = build.build_weights(config.weak_checkpoint, config.dtype, rows=rows)
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


def draw(
    job: SampleJob,
    chain: Chain,
    network: Network,
    networks: Any,
    labels: Any,
    numbers: Any,
    *,
    progress: Callable[[Any], None] | None = None,
    devices: int = 1,
) -> tuple[Any, Any]:
    """Samples, as a traced part of a larger program.

    Args:
        job: whose settings count; its weights come as `network` and `networks`.
        chain: the guidance.
        network, networks: those of the job, as arguments of the compiled program.
        labels, numbers: int32 [B].
        progress: called with the index of each finished step of a grid.

    Returns:
        `(x0, nfe)`: [B, H, W, C], and evaluations per image, int32 [B].
    """
    noise, named = inputs(job, networks, labels, numbers, devices)
    if not isinstance(job.sampler, Adaptive):
        x0 = samplers.generate(
            network, noise, labels, guidance=chain, progress=progress, **named
        )
        return x0, jnp.full(labels.shape, job.cost(chain).nfe, jnp.int32)
    from jaxguide.samplers.adaptive import integrate  # diffrax only where it is used

    shared = {name: named[name] for name in ("conds", "networks", "batched")}
    solution = integrate(
        network,
        noise,
        labels,
        guidance=chain,
        **shared,
        **dataclasses.asdict(job.sampler),
    )
    return solution.x, jnp.broadcast_to(solution.nfe, labels.shape)


def inputs(
    job: SampleJob, networks: Any, labels: Any, numbers: Any, devices: int = 1
) -> tuple[Any, dict[str, Any]]:
    """Initial noise, and the named arguments of `generate` besides the guidance.

    `devices` is over how many the compiler will cut the batch.
    """
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
        sample_keys=keys,
        batched=_batched(job.config.batched, devices),
    )


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
