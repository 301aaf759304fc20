"""Batches read ahead of the step that uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from jaxguide.errors import InputError

Value = TypeVar("Value")


class Prefetch(Generic[Value]):
    """Reads in a background thread, in order, a few steps ahead.

        with Prefetch(read, start, stop) as batches:
            for step, batch in batches:
                ...

    Args:
        read: `step -> batch`; called for one step after the other, in one thread.
        start, stop: steps to read, `start <= step < stop`.
        depth: most batches that are held or being read beside the one in use.

    Raises:
        InputError: if `depth` is not positive. What `read` raises is raised again when
            the iteration comes to its step.
    """

    def __init__(
        self, read: Callable[[int], Value], start: int, stop: int, *, depth: int = 2
    ):
        if depth < 1:
            raise InputError(
                f"Prefetch: need depth >= 1, got depth={depth!r}. 2 hides the reading."
            )
        self._read, self._depth = read, depth
        self._steps = iter(range(start, stop))
        self._ahead: deque[tuple[int, Future[Value]]] = deque()
        # One, so that reads do not overlap; a read may use several (`data.parallel`).
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        for _ in range(depth):
            self._submit()

    def __enter__(self) -> Prefetch[Value]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, Value]]:
        while self._ahead:
            step, future = self._ahead.popleft()
            value = future.result()
            # Before the yield: the next read runs while the caller computes.
            self._submit()
            yield step, value

    def close(self) -> None:
        """Drops what has been read; waits for a read that is under way."""
        self._ahead.clear()
        self._steps = iter(())
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append((step, self._thread.submit(self._read, step)))
