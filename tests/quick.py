"""How tests compile: soon, whatever the speed of the program that comes out."""

import importlib.metadata
import os

# Without fusion emitters a small program compiles in half the time. An unknown flag
# ends the process, and later versions (0.12) lack this one.
_VERSION = importlib.metadata.version("jaxlib")
_FOUND = {}
if _VERSION.startswith("0.10."):
    _FOUND = {
        "xla_cpu_use_fusion_emitters": "false",
        "xla_cpu_parallel_codegen_split_count": "1",
    }

FLAGS = " ".join(f"--{name}={value}" for name, value in _FOUND.items())
# For `jax.jit` of what is compared bit for bit: the fusions that a user's program has.
AS_USERS = {
    name: True for name in _FOUND if name == "xla_cpu_use_fusion_emitters"
} or None


def environment(devices=1):
    """For a program that a test starts: quick to compile, that many CPU devices."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "XLA_FLAGS": f"{FLAGS} {count}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
