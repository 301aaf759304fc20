"""Docstrings of the transforms, read by a machine: complete, listed, and printed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from jaxguide.sample import __main__ as sample, listing
from jaxguide.sample.build import TRANSFORMS

ROOT = Path(__file__).parents[2]


def example(weight: float, *, drop: float = 0.1, kind: str = "a", t_hi: float = 1.0):
    """Example guidance (EG), over
    two lines.

        guided + weight(t) * (raw - other)
               = the same in a second line

    A remark that goes
    on.

        not a formula

    Args:
        weight: dimensionless; its note: has a colon
            and a second line.
        drop, t_hi: two at once.

    Returns:
        A transform.

    Raises:
        ValueError: never.

    NFE: +1 inside the window,
        and no more.
    Source: Someone 2024, arXiv:1234.56789;
        known at second
        hand only.
    Differs from the source: nothing known.

    >>> example(1.0)
    """
    del weight, drop, kind, t_hi


def test_every_part_of_a_docstring_is_found():
    method = listing.describe("example", example)
    assert method.summary == "Example guidance (EG), over two lines."
    assert method.formula == (
        "guided + weight(t) * (raw - other)",
        "       = the same in a second line",
    )
    assert method.remarks == ("A remark that goes on.",)
    assert [str(argument) for argument in method.arguments] == [
        "weight",
        "drop=0.1",
        "kind='a'",
        "t_hi=1.0",
    ]
    said = {argument.name: argument.text for argument in method.arguments}
    assert said == {
        "weight": "dimensionless; its note: has a colon and a second line.",
        "drop": "two at once.",
        "kind": "",
        "t_hi": "two at once.",
    }
    assert method.returns == "A transform."
    assert method.nfe == "+1 inside the window, and no more."
    assert method.source.startswith("Someone 2024, arXiv:1234.56789;")
    assert method.differs == "nothing known."
    assert method.second_hand and method.missing() == []
    assert method.signature == "example(weight, drop=0.1, kind='a', t_hi=1.0)"


def test_what_is_missing_is_named():
    def bare(weight):
        """Only a summary.

        NFE: +1.
        """

    method = listing.describe("bare", bare)
    assert method.missing() == ["formula", "source", "differs"]
    assert not method.second_hand
    assert listing.describe("none", lambda: None).missing() == list(listing.NEEDED)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_docstring_is_complete(name):
    method = listing.describe(name, TRANSFORMS[name])
    assert not method.missing(), f"{name}: no {method.missing()} in its docstring"
    silent = [argument.name for argument in method.arguments if not argument.text]
    assert not silent, f"{name}: no word about {silent} under Args"


def test_the_list_has_every_transform_and_fits():
    text = listing.text()
    assert max(map(len, text.splitlines())) <= listing.WIDTH == 100
    for name, factory in TRANSFORMS.items():
        method = listing.describe(name, factory)
        entry = f"\n\n{text}".split(f"\n\n{name}  ", 1)[1].split("\n\n")[0]
        found = " ".join(entry.split())
        for part in (*method.formula, method.nfe, method.source):
            assert " ".join(part.split()) in found, f"{name}: {part}"


@pytest.mark.parametrize("name", TRANSFORMS)
def test_one_method_whole_has_arguments_and_defaults(name):
    text = listing.text(name)
    assert max(map(len, text.splitlines())) <= listing.WIDTH
    for parameter in inspect.signature(TRANSFORMS[name]).parameters.values():
        assert f"\n    {parameter.name}" in text
        if isinstance(parameter.default, int | float | str):
            assert f"\n    {parameter.name}={parameter.default!r}: " in text


def call(monkeypatch, capsys, *words):
    """(exit code, standard output, standard error) of the command line."""
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    with pytest.raises(SystemExit) as error:
        sample.main()
    printed = capsys.readouterr()
    return error.value.code, printed.out, printed.err


def test_list_as_a_user_runs_it():
    done = subprocess.run(
        [sys.executable, "-m", "jaxguide.sample", "--list"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == listing.text() + "\n"


@pytest.mark.parametrize("words", [["--list", "s2"], ["--list=s2"], ["-list", "s2"]])
def test_list_of_one(monkeypatch, capsys, words):
    code, out, err = call(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert out.startswith("s2(weight, drop=0.1, exclude=(0,), num_masks=1,")


def test_list_may_stand_beside_a_config(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--list", "--config=configs/demo.py")
    assert code == 0 and out == listing.text() + "\n"


def test_list_of_an_unknown_name_is_one_line(monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "--list", "sg_prv")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "Did you mean 'sg_prev'?" in err
