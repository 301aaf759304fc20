"""One case, how it ended, and what that is called."""

import dataclasses
import re

# What is not a refusal in the words of this package.
RAW = re.compile(
    r"invalid literal|object (is not|has no|of type)|index out of range|"
    r"unhashable|not supported between|positional argument|NoneType|"
    r"__\w+__\(\)|could not convert string",
)


# Files that a refused command may leave, and why that is right.
EXCEPTIONS = {
    "plan.json": "a picture is found damaged when its turn comes; a plan of which "
    "nothing is finished is replaced by the next command",
    "new/cache": "a bad checksum shows when an array is read; the features of what is "
    "whole are kept for the next command",
}
# A line of progress, which may stand before the answer.
PROGRESS = re.compile(r".*: step \d+/\d+, .*")


@dataclasses.dataclass(frozen=True)
class Case:
    """A command line to try.

    Attributes:
        program: module below jaxguide.
        words: of its command line.
        nonsense: whether it has to be refused; else it may also be done.
        kind: what is wrong, for the counts.
    """

    program: str
    words: tuple[str, ...]
    nonsense: bool
    kind: str


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        code: its exit code, negative for a signal, None if it hung.
        error: what it printed on standard error.
        left: files that it has written, by their paths.
    """

    code: int | None
    error: str
    left: tuple[str, ...] = ()


def outcome(case: Case, ended: Ended) -> str:
    """The name of the outcome; "refused" and "done" are good."""
    if ended.code is None:
        return "hang"
    if ended.code == 70 or ended.code < 0 or "Traceback" in ended.error:
        return "traceback"
    if ended.code == 0:
        return "accepted nonsense" if case.nonsense else "done"
    if ended.code != 2:
        return f"exit code {ended.code}"
    lines = ended.error.strip().splitlines()
    if len([line for line in lines if not PROGRESS.fullmatch(line)]) != 1:
        return "not one line"
    if RAW.search(ended.error):
        return "words of Python"
    left = [
        file
        for file in ended.left
        if not any(file.startswith(one) or file.endswith(one) for one in EXCEPTIONS)
    ]
    return "left files" if left else "refused"


GOOD = ("refused", "done")
