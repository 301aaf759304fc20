"""Work in a thread of its own, while the caller goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Self

_END = object()


class Background:
    """Does `work(item)` for one item after another, in their order.

        with Background(write) as writing:
            for item in items:
                writing.put(item)

    When the block has ended all of it is done. An error of `work` is raised in the
    caller, by the next `put` or at the end of the block, and nothing follows it. If the
    block itself ends in an error, the item in work is finished and no other begun.

    Args:
        work: of one item.
        waiting: how many items may wait before `put` waits too.
    """

    def __init__(self, work: Callable[[Any], None], waiting: int = 1):
        self._work = work
        self._items: queue.Queue[Any] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._dropped = False
        # A daemon: a second Ctrl-C, or a bug, must not wait for it.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def put(self, item: Any) -> None:
        """Hands over an item; waits while others wait."""
        self._items.put(item)
        self._raise()

    def _run(self) -> None:
        # Takes items to the end also after an error, or `put` would wait for ever.
        while (item := self._items.get()) is not _END:
            if self._error is not None or self._dropped:
                continue
            try:
                self._work(item)
            except BaseException as error:
                self._error = error
            del item  # or it would live until the next one comes

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._dropped = kind is not None
        self._items.put(_END)
        self._thread.join()
        if kind is None:
            self._raise()
