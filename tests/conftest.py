"""Strict numerics, eight host devices and one compilation cache for every test."""

import gc
import os
import shutil
import tempfile

from tests import quick

os.environ["XLA_FLAGS"] = (
    f"{quick.FLAGS} {os.environ.get('XLA_FLAGS', '')} "
    "--xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["HF_HUB_OFFLINE"] = "1"
# torch beside XLA on the same cores: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Lowering writes no line numbers into programs that nobody reads: a fourteenth.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("JAX_TRACEBACK_FILTERING", "off")

import jax
import pytest
from _pytest.doctest import DoctestModule

# Workers, and programs that tests start, inherit the folder, and compile nothing that
# another one has compiled.
CACHE = "JAX_COMPILATION_CACHE_DIR"
MINE = CACHE not in os.environ
if MINE:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="jaxguide-")

os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """The package has doctests; what tests say is not looked through."""
    found = yield
    return [one for one in found if not isinstance(one, DoctestModule)]


@pytest.fixture(autouse=True, scope="module")
def fast_compile(request):
    """Modules that set FAST_COMPILE compile unoptimised: half the time, same law.

    JAX would use a program again that was compiled the other way, and one made anew
    later in the same module differs in the last bit: none survives the change.
    """
    wanted = getattr(request.module, "FAST_COMPILE", False)
    if wanted != jax.config.values["jax_disable_most_optimizations"]:
        jax.config.update("jax_disable_most_optimizations", wanted)
        jax.clear_caches()
    yield
    _let_go(MOST_PROGRAMS)


def pytest_unconfigure():
    if MINE:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


def pytest_collection_finish():
    """Looking through all that importing has made, again and again, is a tenth."""
    _keep()
    gc.set_threshold(10_000, 20, 20)


# Every program that is alive takes most of a megabyte, and makes the next one slower:
# 2,000 of them by half. What is needed again is on disk, at half the price.
MOST_PROGRAMS, FEW_PROGRAMS = 800, 200
MOST_BYTES = 2.2e9


def _let_go(most):
    if len(jax.devices()[0].client.live_executables()) > most:
        jax.clear_caches()
        _keep()


def pytest_runtest_teardown():
    """Also within a long module, so that a worker stays below 3 GB."""
    if _resident() > MOST_BYTES:
        _let_go(FEW_PROGRAMS)


def _resident():
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _keep():
    """What is there now stays: modules, and what they hold."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def key():
    return jax.random.key(0)
