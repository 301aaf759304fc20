"""What jaxguide raises when it refuses what it was given.

A command answers an `InputError` with its text, one line, and exit code 2. Any other
exception is a bug of jaxguide, or an error in a function of the user.
"""


class InputError(ValueError):
    """An argument, a field or a file is not what is needed.

    Its text is one line: who refuses, what is needed, what it got, and what to do.
    """


class UnwritableError(InputError, OSError):
    """A file or folder cannot be written: full, read-only, in the way."""


class NonFiniteError(InputError, FloatingPointError):
    """A sample, a weight, a statistic or a loss is NaN or infinite."""
