"""How fast a run is: images per second, and the share of the hardware that it uses."""

from __future__ import annotations

import dataclasses

import jax

# Peak of dense bfloat16 matrix products per chip in FLOP/s, as the makers state it, by
# the beginning of the name that JAX gives a device. The longest beginning counts.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,  # JAX counts the two cores of a v2 or v3 chip as two devices
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of one device, or None if it is not in the table.

    Args:
        device_kind: as in `jax.devices()[0].device_kind`.

    >>> peak_flops("NVIDIA H100 80GB HBM3")
    989000000000000.0
    """
    fitting = [name for name in PEAK_FLOPS if device_kind.startswith(name)]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


@dataclasses.dataclass(frozen=True)
class Work:
    """What one update costs, and on what it runs.

    Args:
        parameters: values in the network.
        flops: of the model per update: forward, backward and teachers; what is
            recomputed to save memory does not count. 0 means unknown.
        examples: images per update.
        devices: how many share the work.
        peak: FLOP/s of one device; None means unknown.
    """

    parameters: int
    flops: float
    examples: int
    devices: int = 1
    peak: float | None = None

    def __str__(self) -> str:
        kind = jax.devices()[0].device_kind
        peak = f"{self.peak:.3g} FLOP/s each" if self.peak else "peak FLOP/s unknown"
        flops = f"{self.flops:.3g} FLOPs" if self.flops else "FLOPs unknown"
        return (
            f"{self.parameters:,} parameters; {flops} per step of "
            f"{self.examples} images; {self.devices} x {kind} ({peak})"
        )

    def rates(self, steps_per_second: float) -> dict[str, float]:
        """Images, FLOPs and, if the peak is known, utilisation at this speed."""
        numbers = {"images_per_second": steps_per_second * self.examples}
        if self.flops:
            numbers["flops_per_second"] = steps_per_second * self.flops
        if self.flops and self.peak:
            done = steps_per_second * self.flops
            numbers["model_flops_utilisation"] = done / (self.devices * self.peak)
        return numbers
