"""How tests compile: soon, whatever the speed of the program that comes out."""

import importlib.util
import mmap
import os
from pathlib import Path

# Without fusion emitters a small program compiles in half the time.
_WANTED = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def _known(names):
    """Those flags that this XLA has; one that it lacks would end the process."""
    spec = importlib.util.find_spec("jaxlib")
    files = Path(spec.submodule_search_locations[0]).glob("*.so")
    with max(files, key=lambda file: file.stat().st_size).open("rb") as stream:
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as code:
            return [name for name in names if code.find(name.encode()) >= 0]


_FOUND = _known(_WANTED)
FLAGS = " ".join(f"--{name}={_WANTED[name]}" for name in _FOUND)
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
