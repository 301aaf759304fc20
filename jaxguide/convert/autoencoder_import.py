"""Published autoencoders into ours, and back; `autoencoder_layouts` has the names."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jaxguide.convert import autoencoder_layouts as layouts
from jaxguide.convert.tensor_files import PICKLED
from jaxguide.convert.tensors import Tensors, number, open_tensors
from jaxguide.errors import InputError
from jaxguide.models import autoencoder_kl, tiny_autoencoder
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.autoencoders import FAMILIES, KL, TINY, Autoencoder
from jaxguide.models.convolution import parameter_shapes
from jaxguide.models.looks import hint
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig
from jaxguide.models.written import write_arrays, write_text
from jaxguide.runtime.calls import lookup

# What diffusers takes where an old config.json says nothing.
SCALE, SHIFT = 0.18215, 0.0
HALVES = ("encoder", "decoder")
_HALF = re.compile(r"(?<!auto)(?:en|de)coder")


def read_autoencoder_kl(
    path: str | Path | Tensors, *, family: str = "", groups: int = 0
) -> Autoencoder:
    """An AutoencoderKL in the layout of diffusers or latent-diffusion.

    Args:
        path: a file, a folder of diffusers with its config.json, a pipeline folder, or
            a whole checkpoint of Stable Diffusion, of which the rest is not read; or
            what `open_tensors` has opened of it.
        family: one of `FAMILIES`, for the scale of the latents; "" takes what
            config.json says.
        groups: of the group norms, which no shape shows; 0 takes what config.json
            says, or 32, which all published ones have.

    Raises:
        InputError: if arrays are missing, extra or of another shape, or nothing says
            which scale the latents have.
    """
    owner = "read_autoencoder_kl"
    tensors = open_tensors(path, component="vae")
    names = layouts.kl_canonical(tensors)
    if not {"encoder.conv_in.weight", "decoder.conv_in.weight"} <= set(names):
        raise InputError(
            f"{owner}: need an AutoencoderKL of diffusers or latent-diffusion, got "
            f"path={str(tensors.source)!r} without encoder.conv_in or decoder.conv_in. "
            f"{hint(tensors.names) or 'Choose another format.'}"
        )
    config = layouts.kl_config(tensors, names, groups)
    scale, shift = _scale(owner, tensors, family, config.latent_channels, KL)
    shapes = parameter_shapes(autoencoder_kl.init, config)
    params = layouts.take_params(owner, tensors, shapes, layouts.kl_name, names)
    return Autoencoder(config, params, scale, shift, _note(tensors.source, family))


def read_tiny_autoencoder(
    path: str | Path | Tensors, *, family: str = ""
) -> Autoencoder:
    """A member of the TAESD family, in its own layout or that of diffusers.

    Args:
        path: one file with both halves, or a folder with it; or, in the layout of the
            authors, a folder with `*encoder*` and `*decoder*`, or the first of them;
            or what `open_tensors` has opened of it.
        family: one of `FAMILIES`, which checks the channels; "" takes any.

    Raises:
        InputError: if a half is missing, or arrays are missing, extra or misshapen.
    """
    owner = "read_tiny_autoencoder"
    source = path.source if isinstance(path, Tensors) else Path(path)
    files = _halves(owner, source)
    # One file may hold both halves, or be open already.
    each = {f: open_tensors(path if f == source else f) for f in set(files.values())}
    opened = {half: each[file] for half, file in files.items()}
    names = {half: _tiny_names(opened[half], half, files) for half in HALVES}
    fields = {}
    for half in HALVES:
        if f"{half}.layers.0.weight" not in names[half]:
            raise InputError(
                f"{owner}: need layers of a tiny {half}, got path={str(files[half])!r} "
                f"without {half}.layers.0.weight. "
                f"{hint(opened[half].names) or 'Choose another file or format.'}"
            )
        fields |= layouts.tiny_config(opened[half], names[half], half)
    config = TinyAutoencoderConfig(**fields)
    shapes = parameter_shapes(tiny_autoencoder.init, config)
    name = layouts.tiny_name(config)
    together = files["encoder"] == files["decoder"]
    params = {}
    for halves in (HALVES,) if together else (("encoder",), ("decoder",)):
        tensors, known = opened[halves[0]], names[halves[0]]
        wanted = {half: shapes[half] for half in halves}
        params |= layouts.take_params(owner, tensors, wanted, name, known)
    first = opened["encoder"]
    if family:
        _scale(owner, first, family, config.latent_channels, TINY)
    scale, shift = _published_scale(owner, first, 1.0)
    return Autoencoder(config, params, scale, shift, _note(source, family))


def export_autoencoder(folder: str | Path, autoencoder: Autoencoder) -> None:
    """Writes a folder that diffusers opens with `from_pretrained`.

    Args:
        folder: gets `config.json` and `diffusion_pytorch_model.safetensors`.
        autoencoder: what to write, as float32.

    Raises:
        InputError: if diffusers has no such network.
    """
    config = autoencoder.config
    if isinstance(config, AutoencoderKLConfig):
        about, name = _kl_json(config), layouts.kl_name
    elif config.pooled:
        raise InputError(
            "export_autoencoder: need a network that diffusers has, got pooled=True. "
            "Its AutoencoderTiny has no pooled blocks."
        )
    else:
        about, name = _tiny_json(config), layouts.tiny_name(config)
    about |= {"scaling_factor": autoencoder.scale, "shift_factor": autoencoder.shift}
    owner, folder = "export_autoencoder", Path(folder)
    if folder.suffix in (".safetensors", *PICKLED):
        raise InputError(
            f"{owner}: need a folder, got folder={str(folder)!r}. It gets a file of "
            "weights and config.json: leave out the suffix."
        )
    arrays = layouts.give_params(autoencoder.params, name)
    file = folder / "diffusion_pytorch_model.safetensors"
    write_arrays(owner, file, arrays, {"format": "pt"})
    write_text(owner, folder / "config.json", json.dumps(about, indent=2))


def _scale(
    owner: str, tensors: Tensors, family: str, channels: int, kind: str
) -> tuple[float, float]:
    """Scale and shift by the name of a family, or else by config.json."""
    alike = {name: other for name, other in FAMILIES.items() if other.kind == kind}
    if family:
        chosen = lookup(owner, family, alike)
        if chosen.channels != channels:
            raise InputError(
                f"{owner}: need {chosen.channels} latent channels, got {channels} in "
                f"{tensors.path.name} for family={family!r}. Choose another family."
            )
        return chosen.scale, chosen.shift
    if not tensors.config:
        known = sorted(n for n, f in alike.items() if f.channels == channels)
        raise InputError(
            f"{owner}: need a family in {known} for a file without config.json, got "
            "family=''. It gives the scale of the latents."
        )
    return _published_scale(owner, tensors, SCALE)


def _published_scale(
    owner: str, tensors: Tensors, default: float
) -> tuple[float, float]:
    """Scale and shift as config.json has them."""
    scale = float(number(tensors, "scaling_factor", default))
    if scale <= 0:
        raise InputError(
            f"{owner}: need scaling_factor above 0 in config.json, got "
            f"scaling_factor={scale!r} for path={str(tensors.source)!r}. Mend it."
        )
    return scale, float(number(tensors, "shift_factor", SHIFT))


def _note(source: Path, family: str) -> dict:
    return {"source": source.name} | ({"family": family} if family else {})


def _halves(owner: str, path: Path) -> dict[str, Path]:
    """The file of each half; the same one twice if it holds both."""
    if path.is_dir():
        inside = sorted(path.iterdir())
    else:
        swapped = [_HALF.sub(half, path.name) for half in HALVES]
        inside = [path.parent / name for name in swapped]
    files = {half: [f for f in inside if _half_of(f) == half] for half in HALVES}
    if not any(files.values()):
        return dict.fromkeys(HALVES, path)
    for half, matching in files.items():
        if len(matching) != 1 or not matching[0].is_file():
            raise InputError(
                f"{owner}: need one file of the {half}, got path={str(path)!r}. Put "
                "both halves into one folder."
            )
    return {half: matching[0] for half, matching in files.items()}


def _half_of(file: Path) -> str:
    """Which half a file of weights is by its name; "" if the name does not show it."""
    match = _HALF.search(file.name)
    return match[0] if match and file.suffix in (".safetensors", *PICKLED) else ""


def _tiny_names(tensors: Tensors, half: str, files: dict[str, Path]) -> dict[str, str]:
    """Diffusers' names of the arrays of a file, to those that stand there."""
    apart = files["encoder"] != files["decoder"]
    numbered = all(name.split(".")[0].isdigit() for name in tensors.names)
    return layouts.tiny_canonical(tensors.names, half if apart and numbered else "")


def _kl_json(config: AutoencoderKLConfig) -> dict:
    stages = len(config.widths)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.widths),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "use_quant_conv": config.quant_conv,
        "use_post_quant_conv": config.post_quant_conv,
        "mid_block_add_attention": config.mid_attention,
    }


def _tiny_json(config: TinyAutoencoderConfig) -> dict:
    stages = len(config.encoder_blocks)
    return {
        "_class_name": "AutoencoderTiny",
        "act_fn": "relu",
        "in_channels": config.channels,
        "out_channels": config.channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": [config.width] * stages,
        "decoder_block_out_channels": [config.width] * stages,
        "num_encoder_blocks": list(config.encoder_blocks),
        "num_decoder_blocks": list(config.decoder_blocks),
    }
