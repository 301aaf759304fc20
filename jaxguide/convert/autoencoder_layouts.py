"""The arrays of published autoencoders: tables of names, and the order of axes.

Three layouts of AutoencoderKL are read: diffusers' ("encoder.down_blocks.0.resnets.0"),
with the old names of its attention ("query", "proj_attn") or the new ("to_q",
"to_out.0"), and that of latent-diffusion ("encoder.down.0.block.0"), which FLUX.1 and
whole checkpoints of Stable Diffusion use. The tiny ones come as lists of layers that
are named by number. All are brought to the names of today's diffusers first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from jaxguide.convert.tensors import Shape, Tensors, take, whole
from jaxguide.errors import InputError
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.looks import hint
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig

INSIDE_A_CHECKPOINT = "first_stage_model."
Rules = tuple[tuple[str, str], ...]

# Our names to those of diffusers.
_KL_NAMES: Rules = (
    (r"^encoder\.quant\.", "quant_conv."),
    (r"^decoder\.quant\.", "post_quant_conv."),
    (r"^encoder\.stage_(\d+)\.block_", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.halve_(\d+)", r"encoder.down_blocks.\1.downsamplers.0.conv"),
    (r"^decoder\.stage_(\d+)\.block_", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.double_(\d+)", r"decoder.up_blocks.\1.upsamplers.0.conv"),
    (r"\.middle\.block_", ".mid_block.resnets."),
    (r"\.middle\.attention\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.middle\.attention\.query\.", ".mid_block.attentions.0.to_q."),
    (r"\.middle\.attention\.key\.", ".mid_block.attentions.0.to_k."),
    (r"\.middle\.attention\.value\.", ".mid_block.attentions.0.to_v."),
    (r"\.middle\.attention\.out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.(kernel|scale)$", ".weight"),
)
# Names of the older layouts to those of today's diffusers; `up` counts from the end.
_OLDER_NAMES: Rules = (
    (rf"^{re.escape(INSIDE_A_CHECKPOINT)}", ""),
    (r"(attentions\.0)\.query\.", r"\1.to_q."),
    (r"(attentions\.0)\.key\.", r"\1.to_k."),
    (r"(attentions\.0)\.value\.", r"\1.to_v."),
    (r"(attentions\.0)\.proj_attn\.", r"\1.to_out.0."),
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.-\1.resnets."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.-\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)
_TINY_NAMES: Rules = (
    (r"\.conv1\.", ".conv.0."),
    (r"\.conv2\.", ".conv.2."),
    (r"\.conv3\.", ".conv.4."),
    (r"\.pool\.conv\.0\.", ".pool.0."),
    (r"\.pool\.norm\.", ".pool.1."),
    (r"\.pool\.conv\.2\.", ".pool.3."),
    (r"\.(kernel|scale)$", ".weight"),
)


def kl_name(path: str) -> str:
    """Diffusers' name of one array of AutoencoderKL.

    >>> kl_name("decoder.stage_1.block_0.conv1.kernel")
    'decoder.up_blocks.1.resnets.0.conv1.weight'
    """
    return _renamed(path, _KL_NAMES)


def kl_canonical(tensors: Tensors) -> dict[str, str]:
    """Names of an AutoencoderKL in a file, by what diffusers calls them today."""
    inside = [n for n in tensors.names if n.startswith(INSIDE_A_CHECKPOINT)]
    names = {_renamed(name, _OLDER_NAMES): name for name in inside or tensors.names}
    # latent-diffusion counts the stages of the decoder from its end, so their number
    # must be known before they can be renamed: "-" marks them until then.
    stages = sum(
        bool(re.search(r"up_blocks\.-\d+\.resnets\.0\.conv1\.w", n)) for n in names
    )

    def counted(match: re.Match) -> str:
        return f"up_blocks.{stages - 1 - int(match[1])}."

    return {re.sub(r"up_blocks\.-(\d+)\.", counted, n): o for n, o in names.items()}


def kl_config(
    tensors: Tensors, names: Mapping[str, str], groups: int = 0
) -> AutoencoderKLConfig:
    """The architecture that the shapes show; the groups are not among them."""

    def shape(name: str) -> Shape:
        return _kernel(tensors, names, name)

    stages = _count(names, r"encoder\.down_blocks\.(\d+)\.")
    first = [f"encoder.down_blocks.{i}.resnets.0.conv1.weight" for i in range(stages)]
    return AutoencoderKLConfig(
        widths=tuple(shape(name)[0] for name in first),
        layers=_count(names, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        latent_channels=shape("decoder.conv_in.weight")[1],
        groups=groups or whole(tensors, "norm_num_groups", 32),
        in_channels=shape("encoder.conv_in.weight")[1],
        out_channels=shape("decoder.conv_out.weight")[0],
        quant_conv="quant_conv.weight" in names,
        post_quant_conv="post_quant_conv.weight" in names,
        mid_attention="encoder.mid_block.attentions.0.to_q.weight" in names,
    )


def tiny_name(config: TinyAutoencoderConfig) -> Callable[[str], str]:
    """From one of our paths to diffusers' name of that array of `AutoencoderTiny`."""
    places = _places("encoder", config.encoder_blocks, between=("halve",))
    places |= _places("decoder", config.decoder_blocks, between=("", "double"))

    def name(path: str) -> str:
        parts = path.split(".")
        length = 3 if parts[1].startswith("stage_") else 2
        place = places[".".join(parts[:length])]
        return _renamed(".".join([place, *parts[length:]]), _TINY_NAMES)

    return name


def tiny_canonical(names: tuple[str, ...], half: str) -> dict[str, str]:
    """Names in a file, by what diffusers calls them.

    Args:
        names: in the file.
        half: "encoder" or "decoder" if the file is a bare list of the layers of one;
            then the decoder's list begins with its clamp, which diffusers leaves out.
    """
    if not half:
        return {name: name for name in names}
    clamp = half == "decoder"

    def canonical(name: str) -> str:
        number, _, rest = name.partition(".")
        return (
            f"{half}.layers.{int(number) - clamp}.{rest}" if number.isdigit() else name
        )

    return {canonical(name): name for name in names}


def tiny_config(tensors: Tensors, names: Mapping[str, str], half: str) -> dict:
    """What the layers of one half show: fields of `TinyAutoencoderConfig`."""
    layers: dict[int, list[str]] = {}
    for name in names:
        if match := re.match(rf"{half}\.layers\.(\d+)\.(.*)", name):
            layers.setdefault(int(match[1]), []).append(match[2])
    # A list that does not begin with a convolution is another network.
    _kernel(tensors, names, f"{half}.layers.{min(layers, default=0)}.weight")
    blocks, pooled = [], False
    for number in sorted(layers):
        # Stages are not named in the list: a plain convolution stands between two, and
        # what comes after it, until the next one, are the blocks of a stage.
        if "weight" in layers[number]:
            blocks.append(0)
        else:
            blocks[-1] += 1
            pooled |= "pool.0.weight" in layers[number]
    ends = [
        _kernel(tensors, names, f"{half}.layers.{i}.weight") for i in (0, max(layers))
    ]
    (width, inputs, *_), (outputs, *_) = ends
    channels, latent = (inputs, outputs) if half == "encoder" else (outputs, inputs)
    return {
        "latent_channels": latent,
        "width": width,
        f"{half}_blocks": tuple(blocks[:-1]),
        "channels": channels,
        "pooled": pooled,
    }


def _kernel(tensors: Tensors, names: Mapping[str, str], name: str) -> Shape:
    """Shape of a convolution's kernel, by what diffusers calls it.

    Raises:
        InputError: if there is none.
    """
    shape = tensors.shape(names[name]) if name in names else ()
    if len(shape) != 4:
        raise InputError(
            f"read_autoencoder: need an array {name} of 4 axes, got "
            f"{list(shape) if shape else 'none'} in path={str(tensors.source)!r}. "
            f"{hint(tensors.names) or 'Choose another file or format.'}"
        )
    return shape


def take_params(
    owner: str,
    tensors: Tensors,
    shapes: Any,
    name: Callable[[str], str],
    names: Mapping[str, str],
) -> Any:
    """Our parameters, read from the arrays of a file.

    Args:
        owner: the public name that an error begins with.
        tensors: what was opened.
        shapes: nested dict of the parameters that are wanted.
        name: from a dotted path in `shapes` to diffusers' name.
        names: from diffusers' names to those in the file.

    Raises:
        InputError: one line with all that is missing, extra or misshapen.
    """
    flat: dict[str, Any] = traverse_util.flatten_dict(shapes, sep=".")
    there = set(tensors.names)
    wanted: dict[str, Shape] = {}
    sources = {path: names.get(name(path), name(path)) for path in flat}
    for path, source in sources.items():
        shape = _their_shape(flat[path].shape)
        as_conv = (*shape, 1, 1)  # latent-diffusion's attention
        is_conv = source in there and tensors.shape(source) == as_conv
        wanted[source] = as_conv if is_conv and len(shape) == 2 else shape
    # What belongs to the rest of a checkpoint is not "extra".
    others = sorted(there - set(names.values()))
    arrays = take(owner, tensors, wanted, ["loss.*", *others])
    params = {
        path: _our_axes(arrays[source], len(flat[path].shape))
        for path, source in sources.items()
    }
    return traverse_util.unflatten_dict(params, sep=".")


def give_params(params: Any, name: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Our parameters under diffusers' names, float32."""
    flat = traverse_util.flatten_dict(params, sep=".")
    return {
        name(path): np.ascontiguousarray(_their_axes(np.asarray(leaf, np.float32)))
        for path, leaf in flat.items()
    }


def _their_axes(array: np.ndarray) -> np.ndarray:
    """Outputs and inputs come first in PyTorch, and last in Flax."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _their_shape(shape: Shape) -> Shape:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _our_axes(array: np.ndarray, ndim: int) -> np.ndarray:
    if ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.reshape(array.shape[:ndim]).T


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _count(names: Mapping[str, str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _places(
    half: str, counts: tuple[int, ...], *, between: tuple[str, ...]
) -> dict[str, str]:
    """Number of every layer in the list, by our name; a layer without values is "".

    Args:
        half: "encoder" or "decoder".
        counts: blocks of the stages.
        between: layers between two stages.
    """
    order = ["conv_in", *([""] if half == "decoder" else [])]
    for stage, count in enumerate(counts):
        if stage:
            order += [name and f"{name}_{stage}" for name in between]
        order += [f"stage_{stage}.block_{number}" for number in range(count)]
    order.append("conv_out")
    return {
        f"{half}.{name}": f"{half}.layers.{number}"
        for number, name in enumerate(order)
        if name
    }
