"""How a network runs on a device: fields of its config that change no result."""

from __future__ import annotations

import dataclasses

from jaxguide.models.dit_config import DiTConfig

LANES = 128  # of a TPU
# On a GPU up to so many tokens per call the time goes into reading weights, and the
# copies that a loop over blocks makes of them are half of it (`benchmarks.compiled`).
FEW_TOKENS = 1024


def few_rows(config: DiTConfig, device: str, *, rows: int) -> bool:
    """Whether a call on an accelerator takes its time to read weights."""
    count, columns = config.grid
    return device != "cpu" and rows * count * columns <= FEW_TOKENS


def tuned(config: DiTConfig, device: str, *, rows: int) -> DiTConfig:
    """The config as a device runs it fastest.

    Args:
        config: the architecture.
        device: "cpu", "gpu" or "tpu", as `jax.default_backend()` says.
        rows: of one call.
    """
    few = few_rows(config, device, rows=rows)
    return dataclasses.replace(
        config,
        unroll=device == "gpu" and few,
        head_multiple=LANES if device == "tpu" else 1,
    )


def untuned(config: DiTConfig) -> DiTConfig:
    """The config as a file holds it, whatever it ran on."""
    return dataclasses.replace(config, unroll=False, head_multiple=1)
