"""The same work on many items, in a few threads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

MOST_THREADS = 16


def each(function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """`[function(item) for item in items]`; the first error is raised.

    Meant for work that leaves Python: decoding pictures, reading files. `function`
    must not call `each` itself.
    """
    return list(_pool().map(function, items))


# One pool for the process, so that threads are not started anew for every batch.
@functools.cache
def _pool() -> ThreadPoolExecutor:
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    return ThreadPoolExecutor(threads, thread_name_prefix="read")
