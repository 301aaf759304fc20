"""Exit codes of the command lines, and folders that cannot be written."""

from __future__ import annotations

import errno
import os
import re

# One line says what is wrong; the same command will fail again.
MISTAKE = 2
# EX_SOFTWARE of sysexits.h: a bug, or an error in a function of the user.
BUG = 70
# EX_TEMPFAIL of sysexits.h: not finished, the same command carries on.
UNFINISHED = 75
# What a shell reports for a program that Ctrl-C has ended: 128 + SIGINT.
INTERRUPTED = 130

# What `error` numbers mean that a folder cannot be written:
# a full disk, a read-only one, a missing right, a file in the way, a broken device.
UNWRITABLE = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)


def why_unwritable(error: BaseException) -> str | None:
    """The system's words if an error means that a folder cannot be written, or None.

    Libraries that are not written in Python hide the number of the system's error in
    the text of one of their own.

    >>> why_unwritable(ValueError("cannot write (os error 28)"))
    'No space left on device'
    """
    code = getattr(error, "errno", None)
    if code is None:
        match = re.search(r"os[ _]error(?:_code)?\W+(\d+)", str(error), re.IGNORECASE)
        match = match or re.search(r"Os \{ code: (\d+)", str(error))
        code = int(match[1]) if match else None
    return os.strerror(code) if code in UNWRITABLE else None
