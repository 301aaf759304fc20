"""Compiled programs are kept on disk: the second start of a command compiles nothing.

JAX does this if it is told where. The commands tell it, unless the user has:

JAX_COMPILATION_CACHE_DIR=FOLDER     keeps them there, without a limit
JAX_ENABLE_COMPILATION_CACHE=false   keeps nothing
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxguide.errors import UnwritableError
from jaxguide.runtime.files import check_writable, say

# Of the default folder; what was not used for the longest time goes first.
MOST_BYTES = 4 << 30
_BROKEN = re.compile("Error reading persistent compilation cache entry for '([^']+)'")
# JAX keeps what took a second or more; many programs of a small network take less.
_LEAST = "jax_persistent_cache_min_compile_time_secs"


def keep_programs() -> None:
    """Lets JAX keep what it compiles from here on, in a folder of this user.

    A folder that cannot be written is one line on standard error, and no failure.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = default_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_writable(folder, "cache")
            make_room(folder, MOST_BYTES)
        except (OSError, UnwritableError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            say(f"compiled programs are not kept: {folder}: {reason}")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        _replace_broken(folder)
    if _LEAST.upper() not in os.environ:
        jax.config.update(_LEAST, 0.0)


def default_folder() -> Path:
    """`jaxguide/programs/MACHINE` in the user's cache folder (XDG_CACHE_HOME)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "jaxguide" / "programs" / _machine()


def _machine() -> str:
    """What the processor understands: a program for another one may end in SIGILL, and
    machines of a cluster share the user's home."""
    facts = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts += [one for one in lines if re.match("flags|Features", one)][:1]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def make_room(folder: Path, most: int) -> None:
    """Removes the files used longest ago while there are more than `most` bytes."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may have removed it
            facts = path.stat()
            used = max(facts.st_atime, facts.st_mtime)
            found += [(used, facts.st_size, path)] if path.is_file() else []
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


def _replace_broken(folder: Path) -> None:
    """A program that cannot be read, of a killed process, say, is written again.

    JAX warns and compiles it, but would leave the broken file where it is.
    """
    show = warnings.showwarning

    def shown(message: Any, *more: Any, **named: Any) -> None:
        broken = _BROKEN.match(str(message))
        if broken is None:
            show(message, *more, **named)
            return
        for path in folder.glob(f"{broken[1]}-*"):
            path.unlink(missing_ok=True)
        say(f"{broken[1]} in {folder} cannot be read and is compiled again")

    warnings.showwarning = shown
