"""How a command ends that cannot go on: refused in one line, or a bug.

2    one line: an argument, a field or a file is wrong, or cannot be written
70   one line: a bug of jaxguide, or an error in a function of the user; the
     traceback is in a file, or printed with --traceback
130  Ctrl-C
"""

from __future__ import annotations

import contextlib
import os
import signal
import site
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from jaxguide.errors import InputError
from jaxguide.runtime import exits

TRACEBACK = "--traceback"
_PACKAGE = str(Path(__file__).parents[1])


@contextlib.contextmanager
def one_line(news: Callable[[], None] = lambda: None) -> Iterator[None]:
    """An error that ends what is inside becomes one line and an exit code.

    Ctrl-C is left to `interrupt.answered`.

    Args:
        news: called before a bug is said; it may end the program with a better reason.

    Raises:
        SystemExit: with the codes of this module.
    """
    try:
        yield
    except InputError as error:
        leave(str(error))
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except Exception as error:
        if line := _unwritable(error) or _memory(error):
            leave(line)
        news()
        leave(_bug(error), exits.BUG)


def leave(line: str, code: int = exits.MISTAKE) -> NoReturn:
    """Prints one line on standard error and exits."""
    print(" ".join(line.split()), file=sys.stderr)
    raise SystemExit(code)


def _unwritable(error: Exception) -> str | None:
    reason = exits.why_unwritable(error) if isinstance(error, OSError) else None
    if reason is None:
        return None
    name = getattr(error, "filename", None) or "one that was open"
    return (
        f"cli: need files that can be read and written, got {str(name)!r}: {reason}. "
        "Make room or choose another folder."
    )


def _memory(error: Exception) -> str | None:
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return None
    said = " ".join(str(error).split())[:120] or "MemoryError"
    return f"cli: need more memory than there is ({said}). Lower the batch size."


def _bug(error: Exception) -> str:
    """The line for an error that nobody has foreseen; keeps its traceback."""
    text = "".join(traceback.format_exception(error))
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    start = f"cli: unexpected error: {said} ({_place(error)})."
    if TRACEBACK in sys.argv:
        print(text, file=sys.stderr, end="")
        return start
    try:
        handle, name = tempfile.mkstemp(".txt", "jaxguide-traceback-", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:
        return f"{start} {TRACEBACK} prints the traceback."
    return (
        f"{start} The traceback is in {name}; if it is not in your own code, please "
        "report it with the command."
    )


def _place(error: Exception) -> str:
    """Where it was raised: in the user's own file, if one was running."""
    libraries = (
        _PACKAGE,
        sysconfig.get_path("stdlib"),
        *site.getsitepackages(),
        site.getusersitepackages(),
    )
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if os.path.isfile(frame.filename) and not frame.filename.startswith(libraries)
    ]
    if own:
        return f"in your file {own[-1].filename}, line {own[-1].lineno}"
    inside = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    frame = (inside or list(frames))[-1]
    name = os.path.relpath(frame.filename, os.path.dirname(_PACKAGE))
    return f"in {name if inside else frame.filename}, line {frame.lineno}"
