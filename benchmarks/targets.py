"""Devices that programs are compiled for on a machine that has none of them.

    h100: pip install "jax-cuda12-plugin[with-cuda]==0.10.2" jax-cuda12-pjrt==0.10.2
    v5e:  pip install libtpu==0.0.42.1

Each in an environment of its own beside jax 0.10.2. Only one process at a time may load
libtpu.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.roofline import Limits

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
# Versions are compared with those of a driver, which is not here.
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")

import jax
from jax.experimental import topologies

GPU = Path(__file__).with_name("h100.txtpb")


@dataclasses.dataclass(frozen=True)
class Target:
    """A device to compile for."""

    name: str
    backend: str  # as `jax.default_backend()` calls it
    package: str  # that has to be installed
    limits: Limits
    topology: Callable[[], Any]
    options: dict[str, Any] | None = None
    note: str = ""

    @property
    def installed(self) -> bool:
        """Whether its compiler is here."""
        return importlib.util.find_spec(self.package) is not None

    def devices(self) -> Any:
        """Descriptions of devices, which compile and do not run."""
        return self.topology().devices


def _h100() -> Any:
    jax.devices()  # finds the compilers
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name="h100",
        topology="1x1x1",
        target_config=GPU.read_text(encoding="utf-8"),
    )


def _v5e() -> Any:
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")


TARGETS = {
    target.name: target
    for target in (
        Target(
            "h100",
            "gpu",
            "jax_cuda12_plugin",
            # Of the 989 TFLOP/s on paper about four fifths are reached at the clock
            # that a full load leaves; float32 products run as TF32 at half of it.
            Limits({"bf16": 798e12, "f32": 399e12}, 3.352e12),
            _h100,
            # A search for the fastest tiles needs a card.
            {"xla_gpu_enable_triton_gemm": False},
            "at least; a real kernel reaches less than its limit",
        ),
        Target(
            "v5e",
            "tpu",
            "libtpu",
            Limits({"bf16": 197e12, "f32": 197e12 / 6}, 819e9, clock=1.5e9),
            _v5e,
            None,
            "cycles as the compiler estimates them; its attention kernel by its FLOPs",
        ),
    )
}
