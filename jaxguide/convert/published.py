"""Published DiT, SiT, REPA and Model-Guidance checkpoints, read and written.

What a checkpoint means is not in its arrays: which way its time runs and in what unit,
what it predicts, which channels its published figures guide. That is its `Convention`,
one per format, and it comes along in `Weights`. Our noise time t is 1 for noise:

    DiT        sees 1000 t - 1, its timesteps 0..999, and predicts the noise
    SiT        sees 1 - t and predicts data - noise = -velocity: negated here
    REPA, MG   see t and predict noise - data = velocity

Source: facebookresearch/DiT@ed81ce2, willisma/SiT@947f95b, sihyun-yu/REPA@67f7145,
    tzco/Diffusion-wo-CFG, huggingface/diffusers 0.42.
Differs from the source: SiT with `learn_sigma` returns twice the channels and ignores
    the second half; they are kept here, and ignored by the samplers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from jaxguide.convert import architecture, diffusers_layout, layouts, torch_file
from jaxguide.convert.architecture import Architecture
from jaxguide.convert.layouts import Placement
from jaxguide.convert.tensors import Tensors, open_tensors
from jaxguide.errors import InputError
from jaxguide.models import DiTConfig
from jaxguide.models.dit import position_table
from jaxguide.models.weights import Weights, shapes
from jaxguide.models.written import write_arrays
from jaxguide.paths import KINDS, PATHS
from jaxguide.runtime.calls import call, lookup
from jaxguide.runtime.devices import DTYPES

VAE = "sd-vae-ft-ema"
DIFFUSERS = "diffusers-dit"
LEGACY = "repa-legacy"
WRITTEN = (".safetensors", ".pt", ".pth")


@dataclasses.dataclass(frozen=True)
class Convention:
    """What the arrays of one format mean.

    Args:
        about: in a line, for people.
        kind: what the network predicts.
        path: the default noise path.
        time_scale, time_offset, downscale_freq_shift: see `DiTConfig`.
        guided_channels: see `Weights`.
        negated: whether a velocity has the other sign.
        ignore: shell patterns of arrays that sampling does not need.
    """

    about: str
    kind: str = "velocity"
    path: str = "linear"
    time_scale: float = 1.0
    time_offset: float = 0.0
    downscale_freq_shift: float = 0.0
    guided_channels: int = 0
    negated: bool = False
    ignore: tuple[str, ...] = ()

    def times(self) -> dict[str, float]:
        """The fields that `DiTConfig` has too."""
        names = ("time_scale", "time_offset", "downscale_freq_shift")
        return {name: getattr(self, name) for name in names}


_DIT = Convention(
    "DiT: sees timesteps 0..999, predicts noise; 3 channels are guided",
    kind="noise",
    path="ddpm",
    time_scale=1000.0,
    time_offset=-1.0,
    guided_channels=3,
)
_REPA = Convention("REPA: sees t, predicts noise - data", ignore=("projectors.*",))
CONVENTIONS = {
    "dit": _DIT,
    "sit": Convention(
        "SiT: sees 1 - t, predicts data - noise (negated); 3 channels are guided",
        time_scale=-1.0,
        time_offset=1.0,
        guided_channels=3,
        negated=True,
    ),
    "repa": _REPA,
    LEGACY: dataclasses.replace(
        _REPA, about=f"old {_REPA.about}; its later blocks are decoder_blocks"
    ),
    "mg": dataclasses.replace(
        _REPA, about="Model-Guidance: sees t, predicts noise - data; may take a scale"
    ),
    DIFFUSERS: dataclasses.replace(
        _DIT,
        about="DiT in diffusers: as DiT, frequencies divide by 127; all are guided",
        downscale_freq_shift=1.0,
        guided_channels=0,
        ignore=("pos_embed.pos_embed",),
    ),
}


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What no array of a file shows, or what is to be read otherwise.

    Args:
        heads: attention heads; 0 takes those of the published widths.
        image_size: edge of the latents; 0 takes a square of all positions.
        num_classes: 0 takes the last label for "no class". With as many classes as
            the table has rows there is none for it, and that label gives NaN.
        noise_path: if it is not that of the format: "linear", "gvp" or "vp".
        kind: what it predicts if it is not what the format does, such as "score".
        latents: the autoencoder; "" takes sd-vae-ft-ema where there are 4 channels.
        class_names: one per label; () takes what a pipeline says, or numbers.
    """

    heads: int = 0
    image_size: int = 0
    num_classes: int = 0
    noise_path: str = ""
    kind: str = ""
    latents: str = ""
    class_names: tuple[str, ...] = ()


def read_published(
    path: str | Path | Tensors,
    format: str,
    *,
    key: str = "",
    prefix: str = "",
    dtype: str = "float32",
    **options: Any,
) -> Weights:
    """A published checkpoint as weights that sample.

    Args:
        path: a file or folder that `open_tensors` can open, or has opened; for
            "diffusers-dit" also the folder of a whole pipeline.
        format: one of `CONVENTIONS`.
        key: of a training checkpoint, "ema" or "model"; "" takes the average.
        prefix: what stands before all names, if `open_tensors` does not know it.
        dtype: of the parameters: float32, or the type that they will be stored in.
        **options: see `ReadOptions`.

    Returns:
        Weights whose parameters are numpy arrays; `jax.device_put` them once.

    Raises:
        InputError: if the format or an option is unknown, or the file is of another
            layout.
        NonFiniteError: if a value is NaN or infinite, or too large for `dtype`.
    """
    convention = lookup("read_published", format, CONVENTIONS)
    chosen = call("read_published", ReadOptions, options)
    _check_options(chosen, dtype)
    tensors = open_tensors(path, key=key, prefix=prefix, component="transformer")
    known = _sizes(tensors, format, chosen)
    inferred = architecture.infer(tensors, _landmarks(format), **known)
    model = dataclasses.replace(inferred.model, **convention.times())
    kind, noise_path = (
        chosen.kind or convention.kind,
        chosen.noise_path or convention.path,
    )
    note = {"published": format, "file": tensors.source.name}
    note |= _note(inferred, tensors)
    pipeline = diffusers_layout.pipeline(tensors.source) if format == DIFFUSERS else ()
    class_names = _class_names(chosen.class_names or pipeline, model)
    placements = _layout(format, model, kind, note)
    layouts.check_layout("read_published", tensors, placements, convention.ignore)
    leaves = _blank(model, dtype)
    layouts.fill("read_published", tensors, placements, leaves)
    return Weights(
        params=traverse_util.unflatten_dict(leaves, sep="."),
        model=model,
        path=noise_path,
        kind=kind,
        class_names=class_names,
        note=note,
        guided_channels=convention.guided_channels,
        latents=chosen.latents or (VAE if model.channels == 4 else ""),
    )


def write_published(path: str | Path, weights: Weights, format: str) -> None:
    """Writes weights in a published layout, which `read_published` reads again.

    Args:
        path: a `.safetensors` file, or `.pt` (needs PyTorch); for "diffusers-dit" also
            a folder, which diffusers' `from_pretrained` loads.
        weights: of the convention of that format.
        format: one of `CONVENTIONS`.

    Raises:
        InputError: if the format is unknown or the convention of `weights` is another.
        OSError: if the file cannot be written.
    """
    convention = lookup("write_published", format, CONVENTIONS)
    _check_convention(weights, format, convention)
    placements = _layout(format, weights.model, weights.kind, weights.note)
    leaves = traverse_util.flatten_dict(weights.params, sep=".")
    arrays = layouts.gathered(placements, leaves)
    path = Path(path)
    if format == DIFFUSERS and not path.suffix:
        diffusers_layout.write_folder("write_published", path, weights.model, arrays)
        return
    if path.suffix not in WRITTEN:
        folder = ", or a folder" if format == DIFFUSERS else ""
        raise InputError(
            f"write_published: need a file ending in one of {WRITTEN}{folder}, got "
            f"path={str(path)!r}. Rename it."
        )
    save = None if path.suffix == ".safetensors" else torch_file.save
    write_arrays("write_published", path, arrays, save=save)


def _landmarks(format: str) -> architecture.Landmarks:
    other = {DIFFUSERS: architecture.DIFFUSERS, LEGACY: architecture.LEGACY}
    return other.get(format, architecture.OFFICIAL)


def _check_options(options: ReadOptions, dtype: str) -> None:
    """Raises InputError for a name or number that no file can have."""
    owner = "read_published"
    lookup(owner, dtype, dict.fromkeys(DTYPES))
    if options.kind:
        lookup(owner, options.kind, dict.fromkeys(KINDS))
    if options.noise_path:
        lookup(owner, options.noise_path, PATHS)
    for name in ("heads", "image_size", "num_classes"):
        if getattr(options, name) < 0:
            raise InputError(
                f"{owner}: need {name} >= 1, or 0 to read it off the file, got "
                f"{name}={getattr(options, name)!r}. Leave it out."
            )


def _sizes(tensors: Tensors, format: str, options: ReadOptions) -> dict[str, int]:
    """What is known of the architecture besides the shapes."""
    given = {
        name: getattr(options, name) for name in ("heads", "image_size", "num_classes")
    }
    stated = diffusers_layout.sizes(tensors) if format == DIFFUSERS else {}
    return {name: value or stated.get(name, 0) for name, value in given.items()}


def _note(inferred: Architecture, tensors: Tensors) -> dict[str, Any]:
    """Facts that writing the same layout again needs, and where it came from."""
    note: dict[str, Any] = {"key": tensors.key} if tensors.key else {}
    if inferred.rows == inferred.model.num_classes:
        note["null_row"] = False
    if len(inferred.series) > 1:
        note["encoder_depth"] = inferred.series[0]
    return note


def _blank(model: DiTConfig, dtype: str) -> dict[str, np.ndarray]:
    """Our leaves, before a file is read into them."""
    leaves = {n: np.empty(shape, dtype) for n, shape in shapes(model).items()}
    leaves["pos_embed"][...] = position_table(model)  # diffusers does not store it
    leaves["label_table"][-1] = np.nan  # of a table without a row for "no class"
    return leaves


def _layout(format: str, model: DiTConfig, kind: str, note: dict) -> list[Placement]:
    """The layout of a format for an architecture."""
    if format == DIFFUSERS:
        return diffusers_layout.placements(model)
    depth = note.get("encoder_depth", model.depth) if format == LEGACY else model.depth
    negated = CONVENTIONS[format].negated and kind == "velocity"
    return layouts.official(
        model,
        sign="negated " if negated else "",
        null_row=note.get("null_row", True),
        block=layouts.legacy(depth),
    )


def _class_names(names: tuple[str, ...], model: DiTConfig) -> tuple[str, ...]:
    names = names or tuple(str(label) for label in range(model.num_classes))
    if len(names) != model.num_classes:
        raise InputError(
            f"read_published: need {model.num_classes} class_names, got {len(names)}. "
            "Give one per label, without that for no class."
        )
    return names


def _check_convention(weights: Weights, format: str, convention: Convention) -> None:
    """Raises InputError unless the weights mean what the format means."""
    wanted: dict[str, Any] = dict(convention.times())
    actual = {name: getattr(weights.model, name) for name in wanted}
    if weights.note.get("published") != format:  # else read with options, perhaps
        wanted |= {"kind": convention.kind, "path": convention.path}
        actual |= {"kind": weights.kind, "path": weights.path}
    if format != "mg":
        wanted["inputs"], actual["inputs"] = (), weights.model.inputs
    other = {name: actual[name] for name in wanted if wanted[name] != actual[name]}
    if other:
        raise InputError(
            f"write_published: need weights with "
            f"{ ({name: wanted[name] for name in other}) } for format={format!r}, got "
            f"{other}. Who reads such a file would take them for another network."
        )
