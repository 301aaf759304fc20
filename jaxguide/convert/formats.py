"""The formats that `python -m jaxguide.convert` knows: names into functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguide.convert import read_published, write_published
from jaxguide.convert.autoencoder_import import (
    export_autoencoder,
    read_autoencoder_kl,
    read_tiny_autoencoder,
)
from jaxguide.convert.feature_networks import load_features, save_features
from jaxguide.convert.published import CONVENTIONS
from jaxguide.convert.tensors import Tensors
from jaxguide.errors import InputError
from jaxguide.models import Weights, load_weights, save_weights
from jaxguide.models.autoencoders import Autoencoder, load_autoencoder, save_autoencoder
from jaxguide.runtime.calls import call

Opened = Tensors | Path


@dataclass(frozen=True)
class Format:
    """One layout of others' files, and the file of ours that it becomes.

    Args:
        about: what it is, in a line.
        read: (opened, dtype, options) -> object; `opened` are the tensors, or a folder
            with one file for each half, and `dtype` is that of the file to be.
        save: (path, object, dtype) writes ours.
        describe: object -> what was assumed, in lines.
        load: path -> object reads ours.
        export: (path, object) writes theirs; None where there is no way back.
        component: subfolder of a pipeline of diffusers that is read.
    """

    about: str
    read: Callable[[Opened, str, Mapping[str, Any]], Any]
    save: Callable[[Path, Any, str], None]
    describe: Callable[[Any], str]
    load: Callable[[Path], Any]
    export: Callable[[Path, Any], None] | None = None
    component: str = ""


def _network(name: str) -> Format:
    """A layout of DiT."""
    return Format(
        about=CONVENTIONS[name].about,
        read=lambda opened, dtype, options: read_published(
            opened, name, dtype=dtype, **options
        ),
        save=lambda path, weights, dtype: save_weights(path, weights, dtype=dtype),
        describe=_describe_weights,
        load=load_weights,
        export=lambda path, weights: write_published(path, weights, name),
        component="transformer",
    )


def _describe_weights(weights: Weights) -> str:
    model = weights.model
    shift = ", frequencies / 127" if model.downscale_freq_shift else ""
    guided = weights.guided_channels or "all"
    extra = "".join(f", takes a {name}" for name in model.inputs)
    return "\n".join(
        [
            f"model     width {model.width}, depth {model.depth}, heads {model.heads}, "
            f"patch {model.patch}, {'x'.join(map(str, model.image_shape))}, "
            f"{model.num_classes} classes{extra}",
            f"time      network sees {model.time_scale:g} t {model.time_offset:+g}, "
            f"t = 1 is noise{shift}",
            f"output    {weights.kind} on path {weights.path}"
            f"{', twice the channels' if model.learn_sigma else ''}",
            f"guided    {guided} channels",
            f"latents   {weights.latents or 'none: pixels'}",
        ]
    )


def _autoencoder(
    about: str, read: Callable[..., Autoencoder], component: str = ""
) -> Format:
    """A layout of an autoencoder."""
    return Format(
        about=about,
        read=lambda opened, dtype, options: call(
            "convert", read, {**options, "path": opened}
        ),
        save=lambda path, autoencoder, dtype: save_autoencoder(
            path, autoencoder, dtype=dtype
        ),
        describe=lambda autoencoder: (
            f"latents   x0 = (latent - {autoencoder.shift:g}) * {autoencoder.scale:g}"
        ),
        load=load_autoencoder,
        export=export_autoencoder,
        component=component,
    )


def _features(name: str, about: str) -> Format:
    """A feature network in PyTorch's layout."""

    def read(opened: Opened, dtype: str, options: Mapping[str, Any]) -> Any:
        if options or dtype != "float32":
            raise InputError(
                f"convert: need no options for {name}, got dtype={dtype!r}, "
                f"{dict(options)}. Leave them out."
            )
        return load_features(name, opened)

    return Format(
        about=about,
        read=read,
        save=lambda path, params, dtype: save_features(path, name, params),
        describe=lambda params: "layers    batch norm is folded into convolutions",
        load=lambda path: load_features(name, path),
    )


FORMATS: dict[str, Format] = {
    **{name: _network(name) for name in CONVENTIONS},
    "autoencoder-kl": _autoencoder(
        "Stable Diffusion's autoencoder, of diffusers or CompVis",
        read_autoencoder_kl,
        component="vae",
    ),
    "taesd": _autoencoder(
        "tiny autoencoders: TAESD, TAESDXL, TAEF1, TAEF2, ...", read_tiny_autoencoder
    ),
    "inception": _features("inception", "Inception-v3 (2015-12-05) of FID"),
    "efficientnet-lite0": _features("efficientnet-lite0", "EfficientNet-Lite0"),
}
