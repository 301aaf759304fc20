"""How tests compile: soon, whatever the speed of the program that comes out."""

import importlib.metadata
import os

# `AS_USERS` is for `jax.jit` of what is compared bit for bit: a user's fusions.
FLAGS, AS_USERS = "", None
# An unknown flag ends the process, and jaxlib 0.12 lacks the first one.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Without fusion emitters a small program compiles in half the time.
    FLAGS = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
    AS_USERS = {"xla_cpu_use_fusion_emitters": True}


def environment(devices=1):
    """For a program that a test starts: quick to compile, that many CPU devices."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "XLA_FLAGS": f"{FLAGS} {count}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
