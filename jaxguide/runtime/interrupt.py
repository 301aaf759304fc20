"""Ctrl-C in a command: one line and exit code 130, also while it is importing."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from jaxguide.runtime import exits

LINE = "stopped by Ctrl-C; the same command carries on or starts again"


def leave_at_once(*_: object) -> NoReturn:
    """Ends the process in a line. Not `sys.exit`: threads of JAX may be running."""
    os.write(2, f"\n{LINE}\n".encode())
    os._exit(exits.INTERRUPTED)


def install() -> None:
    """From here on Ctrl-C leaves at once: nothing has been begun.

    KeyboardInterrupt would end in a traceback, or be lost in an extension module.
    """
    # Else whoever started this ignores Ctrl-C, as a shell does for its background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave_at_once)


def _is_lost(frame: FrameType | None) -> bool:
    """Whether an exception that is raised here would only be printed.

    JAX looks after its memory in a callback of Python's collector, which swallows it.
    """
    while frame is not None and frame.f_code.co_name != "_xla_gc_callback":
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, which ends the process in a line.

    What is inside can clean up. A second Ctrl-C leaves at once.
    """

    def first(number: int, frame: FrameType | None) -> None:
        if _is_lost(frame):
            again = (os.getpid(), signal.SIGINT)
            threading.Timer(0.01, os.kill, again).start()
            return
        signal.signal(signal.SIGINT, leave_at_once)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is leave_at_once:
        signal.signal(signal.SIGINT, first)
    try:
        yield
    except KeyboardInterrupt:
        leave_at_once()
