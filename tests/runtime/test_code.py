"""The checksum of a function changes with what it computes, and with nothing else."""

import functools
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jaxguide.runtime import code

TABLE = "import numpy as np\nSCALE = 2\ndef f(x): return SCALE * x\n"


def function(text, name="f", **others):
    """`name` of a module that is typed in."""
    module = types.ModuleType("typed")
    module.__dict__.update(others)
    exec(text, module.__dict__)
    return getattr(module, name)


def test_the_same_code_has_the_same_checksum_also_with_other_comments():
    spaced = TABLE.replace("return", "\n    # why\n    return")
    assert code.digest(function(TABLE)) == code.digest(function(spaced))


def test_code_constants_globals_and_closures_are_taken_in():
    def made(scale, table):
        return lambda x: x @ table * scale

    table = np.eye(3)
    functions = [
        function(TABLE),
        function(TABLE.replace("SCALE * x", "SCALE + x")),
        function(TABLE.replace("SCALE = 2", "SCALE = 3")),
        function("def f(x, scale=2): return scale * x"),
        function("def f(x, scale=3): return scale * x"),
        function("def f(x): return g(x)\ndef g(x): return x"),
        function("def f(x): return g(x)\ndef g(x): return -x"),
        made(2, table),
        made(3, table),
        made(2, 2 * table),
        functools.partial(function(TABLE), 1),
        functools.partial(function(TABLE), 2),
        jax.tree_util.Partial(function(TABLE), jax.numpy.ones(2)),
        jax.tree_util.Partial(function(TABLE), jax.numpy.zeros(2)),
        jax.jit(function(TABLE)),
        jax.jit(function(TABLE.replace("SCALE = 2", "SCALE = 3"))),
    ]
    assert len(set(map(code.digest, functions))) == len(functions)
    assert code.digest(made(2, np.eye(3))) == code.digest(made(2, table))


def test_objects_are_known_by_what_they_hold():
    class Own:
        def __init__(self, table):
            self.inner = {"table": table, "self": self}

        def __call__(self, x):
            return x @ self.inner["table"]

    one, two = (Own(np.full((2, 2), number)) for number in (1, 2))
    assert code.digest(one) == code.digest(Own(np.full((2, 2), 1)))
    assert code.digest(one) != code.digest(two)
    assert code.digest(one.__call__) != code.digest(two.__call__)
    keys = [np.array([len, "a"], object), np.array([len, "b"], object)]
    assert code.digest(keys[0]) != code.digest(keys[1])
    code.digest(jax.random.key(0))


def test_modules_of_the_user_are_taken_in_and_installed_ones_are_names(
    tmp_path, monkeypatch
):
    (tmp_path / "digest_inner.py").write_text("def g(x): return x\n")
    (tmp_path / "digest_outer.py").write_text("import digest_inner\nimport numpy\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "import digest_outer\ndef f(x): return digest_outer.digest_inner.g(x)"
    before = code.digest(function(text))
    assert code.digest(function(text)) == before
    (tmp_path / "digest_inner.py").write_text("def g(x): return -x\n")
    assert code.digest(function(text)) != before
    for name in ("digest_inner", "digest_outer"):
        del sys.modules[name]


@pytest.mark.exhaustive
def test_another_process_finds_the_same():
    text = "import runpy, sys; sys.path.insert(0, sys.argv[1])\n"
    text += "from jaxguide.runtime import code\n"
    text += "print(code.digest({'f': code.digest, 'x': {'b', 'a'}, 'o': object}))"
    place = str(code._PACKAGE.parent)
    words = [sys.executable, "-c", text, place]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    mine = code.digest({"f": code.digest, "x": {"b", "a"}, "o": object})
    assert found.stdout.strip() == mine


def test_what_is_ours():
    assert code.is_ours(code.digest) and code.is_ours(jax.jit(code.digest))
    assert not code.is_ours(function(TABLE)) and not code.is_ours(np.linalg.svd)
