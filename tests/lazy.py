"""Heavy packages that only some tests need: looked for at once, imported when used.

Every worker reads every test file; PyTorch beside JAX takes eight seconds and half a
gigabyte in each.
"""

import importlib
import importlib.util

import pytest


class Lazy:
    """A module that is imported when it is first asked for something."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        return getattr(importlib.import_module(self._name), name)

    def __dir__(self):
        return dir(importlib.import_module(self._name))


def needs(*names, reason):
    """These packages; without one of them the test file is skipped, for this reason.

    A file that calls this runs in the one worker that has imported them.
    """
    for name in names:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            pytest.skip(reason, allow_module_level=True)
    found = [Lazy(name) for name in names]
    return found[0] if len(found) == 1 else found
