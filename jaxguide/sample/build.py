"""Names in a `SampleConfig` into objects: transforms, samplers, grids, networks.

Guidance is an ordered list of `dict(name=..., <arguments of that transform>)`.
"""

import dataclasses
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, losses, models, samplers
from jaxguide.errors import InputError
from jaxguide.guidance import Chain, Network, Transform, schedules
from jaxguide.models import Weights, load_weights
from jaxguide.models.autoencoders import decoder_of
from jaxguide.paths import PATHS, Path as NoisePath
from jaxguide.runtime import devices
from jaxguide.runtime.calls import call, described_call, lookup, parse_call
from jaxguide.sample.config import UNGUIDED, SampleConfig
from jaxguide.samplers import grids
from jaxguide.samplers._checks import check_tolerances

ASSETS = Path(__file__).parent / "assets"


TRANSFORMS: dict[str, Callable[..., Transform | Chain]] = {
    method.__name__: method for method in guidance.METHODS
}
SETTINGS = {paper.name: paper for paper in guidance.PAPERS}


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """`samplers.integrate` with dopri5, in place of a sampler that walks a grid.

    Args:
        rtol, atol: tolerances; these are SiT's.
        per_sample: False controls the error of the whole batch, as SiT does.

    Raises:
        InputError: for tolerances that are negative, not finite, or both 0.
    """

    rtol: float = 1e-3
    atol: float = 1e-6
    per_sample: bool = True

    def __post_init__(self):
        check_tolerances("dopri5", self.rtol, self.atol)


def recurrent(sampler: str, repeats: int) -> samplers.Sampler:
    """`samplers.recurrent` of a sampler that is given as text."""
    inner = parse_sampler(sampler)
    if isinstance(inner, Adaptive):
        raise InputError(
            f"recurrent: need a sampler that walks the grid, got sampler={sampler!r}. "
            "Use 'ddim'."
        )
    return samplers.recurrent(inner, repeats)


SAMPLERS: dict[str, Callable[..., samplers.Sampler | Adaptive]] = {
    "ddim": samplers.ddim,
    "ddpm": samplers.ddpm,
    "dopri5": Adaptive,
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_sde": samplers.dpmpp_sde,
    "euler": samplers.euler,
    "euler_maruyama": samplers.euler_maruyama,
    "heun": samplers.heun,
    "recurrent": recurrent,
    "res_2m": samplers.res_2m,
    "res_2s": samplers.res_2s,
    "sde_heun": samplers.sde_heun,
    "unipc": samplers.unipc,
}
GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "karras": grids.karras,
    "respaced": grids.respaced,
    "shifted": grids.shifted,
    "shifted_twice": grids.shifted_twice,
    "uniform": grids.uniform,
}


def build_transform(entry: Mapping[str, Any]) -> Transform | Chain:
    """One transform from dict(name=..., ...).

    A scale or weight may be a number, or a schedule as text or dict: "cosine(4.0)" or
    dict(name="cosine", value=4.0), one of `schedules.CURVES`; a function itself, or
    "package.module:function".

    Raises:
        InputError: if the name, an argument's name or a value is wrong.
    """
    if not isinstance(entry.get("name"), str):
        raise InputError(
            f"build_guidance: need a name in every entry, got {dict(entry)!r}. "
            "Write dict(name='cfg', scale=1.5)."
        )
    if paper := SETTINGS.get(entry["name"]):
        raise InputError(
            f"build_guidance: need the transform of which {paper.name!r} is a setting, "
            f"got name={paper.name!r}. Write it as {paper.call}."
        )
    factory = lookup("build_guidance", entry["name"], TRANSFORMS)
    arguments = {key: value for key, value in entry.items() if key != "name"}
    try:
        arguments = _with_schedules("build_guidance", factory, arguments)
        return call("build_guidance", factory, arguments)
    except ValueError as error:
        title, text = f"build_guidance {entry['name']}:", str(error)
        if text.startswith("build_guidance"):
            raise
        inside = text.startswith(f"{entry['name']}:")
        raise InputError(f"{'build_guidance' if inside else title} {text}") from error


def _with_schedules(
    owner: str, factory: Callable, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments, schedules built where the hint is that of a weight."""
    hints = typing.get_type_hints(factory)

    def built(value: Any, hint: Any) -> Any:
        inner = typing.get_args(hint)
        if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
            return tuple(built(one, inner[0]) for one in value)
        if schedules.Schedule not in inner:
            return value
        described = described_call(owner, value, schedules.CURVES)
        if described is None:
            return value
        curve, numbers = described
        return call(owner, curve, _with_schedules(owner, curve, numbers))

    return {name: built(value, hints.get(name)) for name, value in arguments.items()}


def build_guidance(entries: Sequence[Mapping[str, Any]]) -> Chain:
    """The chain of an ordered list of entries."""
    return guidance.chain(*(build_transform(entry) for entry in entries))


def with_channels(chain: Chain, config: SampleConfig, weights: Weights) -> Chain:
    """The chain, guiding as many channels as the config or the checkpoint says."""
    number = config.guided_channels
    number = weights.guided_channels if number < 0 else number
    if not number or not chain.parts:
        return chain
    return guidance.chain(chain, guidance.guided_channels(number))


def build_columns(config: SampleConfig) -> dict[str, Chain]:
    """The chain of every column group, by title.

    Raises:
        InputError: if a column names no entry of the guidance list.
    """
    build_guidance(config.guidance)  # a mistake there is named first
    known = {entry["name"]: None for entry in config.guidance}
    chains = {}
    for column in config.columns:
        names = [] if column == UNGUIDED else column.split("+")
        for name in names:
            lookup("build_columns", name, known | {UNGUIDED: None})
        picked = [entry for entry in config.guidance if entry.get("name") in names]
        chains[column] = build_guidance(picked)
    if not chains:
        raise InputError("build_columns: need at least one column, got columns=().")
    return chains


def parse_sampler(text: str) -> samplers.Sampler | Adaptive:
    """The sampler of "name" or "name(argument=value)".

    Raises:
        InputError: if the name, an argument's name or a value is wrong.
    """
    name, arguments = parse_call("build_sampler", text)
    return call("build_sampler", lookup("build_sampler", name, SAMPLERS), arguments)


def build_grid(config: SampleConfig, path: NoisePath) -> np.ndarray:
    """Noise times [num_steps + 1], float64."""
    name, arguments = parse_call("build_grid", config.grid)
    factory = lookup("build_grid", name, GRIDS)
    arguments["num_steps"] = config.num_steps
    if "path" in inspect.signature(factory).parameters:
        arguments["path"] = path
    return call("build_grid", factory, arguments)


def find_checkpoint(name: str) -> Path:
    """The file of a checkpoint in the package, or the path that was given.

    Raises:
        InputError: if there is neither.
    """
    inside = {file.stem: file for file in sorted(ASSETS.glob("*.safetensors"))}
    if name in inside:
        return inside[name]
    if os.path.isfile(name):  # False too where a name is too long
        return Path(name)
    raise InputError(
        f"checkpoint: need a .safetensors file or one of {sorted(inside)}, got "
        f"checkpoint={name!r}. Train one with python -m jaxguide.train."
    )


def build_weights(
    name: str, dtype: str, *, rows: int = 64, parallel: str = "data"
) -> Weights:
    """Weights of a checkpoint, stored and computing in `dtype`, for these devices.

    `rows` of one call decide how the network runs, see `models.tuned`. With `parallel`
    "fsdp" neither the host nor a device ever holds a whole copy.
    """
    place = devices.sharded_named if parallel == "fsdp" else None
    # Cast here: inside a program of many steps a GPU would cast them at every step.
    weights = load_weights(find_checkpoint(name), dtype=dtype, place=place)
    model = dataclasses.replace(weights.model, dtype=dtype)
    model = models.tuned(model, jax.default_backend(), rows=rows)
    if parallel == "fsdp":
        # Without a loop over blocks nothing keeps XLA from fetching all of them first.
        model = dataclasses.replace(model, unroll=False)
    return weights._replace(model=model)


def build_decode(config: SampleConfig, weights: Weights) -> Callable | None:
    """From latents x0 [B, h, w, c] to images in [-1, 1]; None without autoencoder.

    Raises:
        InputError: if the file is missing or for latents of another shape.
    """
    if not config.autoencoder:
        return None
    channels, hint = weights.model.channels, weights.latents
    return decoder_of("autoencoder", config.autoencoder, channels, hint=hint)


def check_learnt_scale(config: SampleConfig, weights: Weights) -> None:
    """Raises InputError if the network takes no scale, and the config gives one."""
    if config.learnt_scale != 1 and not weights.model.takes_scale:
        raise InputError(
            "sample: need learnt_scale=1 for a network that takes no scale, got "
            f"learnt_scale={config.learnt_scale!r} with checkpoint="
            f"{config.checkpoint!r}. Guide it instead: --config.columns=cfg."
        )


def build_network(weights: Weights, learnt_scale: float = 1.0) -> Network:
    """The network of a checkpoint, as guidance and samplers see it."""
    numbers = losses.inputs_at(learnt_scale, weights.model.inputs)
    total, block = models.flops(weights.model)
    return Network(
        predict=jax.tree_util.Partial(
            models.Predictor(weights.model), weights.params, **numbers
        ),
        kind=weights.kind,
        path=lookup("build_network", weights.path, PATHS)(),
        depth=weights.model.depth,
        flops=float(total),
        block_flops=float(block),
        tokens=weights.model.grid,
    )


def tabulated(
    network: Network, grid: np.ndarray, sampler: samplers.Sampler, labels: Any
) -> Network:
    """The network with the modulations of all steps computed before the first one.

    Args:
        network: of `build_network`.
        grid, sampler: that it will be sampled with.
        labels: int32 [L], all that it will see.
    """
    predict: Any = network.predict
    model, (params, *_) = predict.func.model, predict.args
    if model.inputs:
        return network
    with np.errstate(all="ignore"):
        second = sampler.second_times(network.path, grid)
    times = np.unique(np.concatenate([grid, second]).astype(np.float32))
    table = models.tabulate(model, params, jnp.asarray(times), labels)
    named = predict.keywords | {"table": table}
    return dataclasses.replace(
        network, predict=jax.tree_util.Partial(predict.func, params, **named)
    )
