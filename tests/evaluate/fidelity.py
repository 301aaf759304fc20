"""torch-fidelity, which imports torchvision: here without it.

Only its networks and its metrics on features are used, and neither touches torchvision;
whatever is taken from it in the meantime is an empty stand-in.
"""

import importlib
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

STOOD_IN = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _StandIn(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def module(name: str) -> ModuleType:
    """`torch_fidelity.name`; skips the test where the package is missing."""
    pytest.importorskip("torch", reason="the independent implementation is PyTorch's")
    stand_ins = {name: _StandIn(name) for name in STOOD_IN}
    for path, stand_in in stand_ins.items():
        parent, _, child = path.rpartition(".")
        if parent:
            setattr(stand_ins[parent], child, stand_in)
    with mock.patch.dict(sys.modules):
        sys.modules.update(stand_ins)
        try:
            return importlib.import_module(f"torch_fidelity.{name}")
        except ModuleNotFoundError as error:
            if error.name != "torch_fidelity":
                raise
            pytest.skip("the independent implementation is torch-fidelity's")
