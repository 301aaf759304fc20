"""One file of named arrays: safetensors, PyTorch's by its safe loader, a TF graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguide.convert import tf_graph
from jaxguide.convert.stored import Entry, File
from jaxguide.convert.torch_file import TorchFile
from jaxguide.errors import InputError
from jaxguide.models.safetensors_file import check_regular, read_array, read_header

OWNER = "open_tensors"
PICKLED = (".pt", ".pth", ".bin")


def open_file(path: Path) -> File:
    """One file of arrays.

    Raises:
        InputError: if it is no regular file, cannot be read safely, or needs PyTorch
            where that is missing.
    """
    kinds = {".safetensors": _Safetensors, ".pb": _Graph}
    kinds |= dict.fromkeys(PICKLED, TorchFile)
    if path.suffix not in kinds:
        raise InputError(
            f"{OWNER}: need a .safetensors, .pt, .pth, .bin or .pb file, got "
            f"path={str(path)!r}. Rename it if it is one of them."
        )
    check_regular(OWNER, path)
    return kinds[path.suffix](path)


class _Safetensors:
    """One safetensors file."""

    nested = ()

    def __init__(self, path: Path):
        metadata, self._arrays = read_header(OWNER, path)
        self._path, self.said = path, metadata.get("jaxguide", "")
        self.entries = {n: Entry(a.shape, a.dtype) for n, a in self._arrays.items()}

    def get(self, name: str) -> np.ndarray:
        return read_array(self._path, self._arrays[name])


class _Graph:
    """The constants of one frozen TensorFlow graph."""

    nested, said = (), ""

    def __init__(self, path: Path):
        self._constants = tf_graph.read_constants(path)
        self.entries = {
            name: Entry(constant.shape, "float32")
            for name, constant in self._constants.items()
        }

    def get(self, name: str) -> np.ndarray:
        return tf_graph.as_array(self._constants[name])
