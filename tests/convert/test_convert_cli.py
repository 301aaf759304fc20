"""The command line that converts weights, as a user meets it."""

import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxguide.convert import __main__ as convert
from jaxguide.convert.formats import FORMATS
from jaxguide.models import load_weights
from tests.convert.test_published import in_diffusers, official


def call(monkeypatch, *words):
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, words)])
    convert.main()


def refused(monkeypatch, capsys, *words):
    """The one line on standard error of a command that is refused."""
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, *words)
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "Traceback" not in line, line
    return line


def test_there_and_back_as_a_user_does_it(tmp_path, monkeypatch, capsys):
    arrays = official(outputs=8)
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "new" / "o.safetensors"
    save_file(arrays, str(theirs))
    words = ["--from", "sit", theirs, ours, "--option", "heads=3"]
    call(monkeypatch, *words, "--option", "noise_path=gvp")
    told = capsys.readouterr().out
    assert "blocks.*.attn.qkv.weight" in told and "42 arrays, " in told
    for line in (
        "model     width 24, depth 3, heads 3, patch 2, 8x8x4, 5 classes",
        "time      network sees -1 t +1, t = 1 is noise",
        "output    velocity on path gvp, twice the channels",
        "guided    3 channels",
        "latents   sd-vae-ft-ema",
        f"wrote     {ours}, ",
    ):
        assert line in told
    weights = load_weights(ours)
    assert weights.model.heads == 3 and weights.path == "gvp"
    call(monkeypatch, "--to", "sit", ours, tmp_path / "back.safetensors")
    assert "wrote     " in capsys.readouterr().out
    back = load_file(tmp_path / "back.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back, arrays)


def test_a_shorter_type_makes_a_smaller_file(tmp_path):
    save_file(in_diffusers(), str(tmp_path / "a.safetensors"))
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{dtype}.safetensors"
        options = dict(dtype=dtype, heads=2, image_size=8)
        convert.import_file("diffusers-dit", tmp_path / "a.safetensors", out, **options)
        sizes[dtype] = out.stat().st_size
    assert 0.4 < sizes["bfloat16"] / sizes["float32"] < 0.6


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    theirs = tmp_path / "theirs.safetensors"
    save_file(official(), str(theirs))
    out = theirs / "below" / "o.safetensors"  # a file is in the way
    words = ["--from", "repa", theirs, out, "--option", "heads=2"]
    assert "need" in refused(monkeypatch, capsys, *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "the following arguments are required: FILE, OUT"),
        (["--from", "dit", "a"], "the following arguments are required: OUT"),
        (["--from", "ditt", "a", "b.safetensors"], "Did you mean 'dit'?"),
        (["--from", "dit", "a", "b.safetensors"], "need an existing file or folder"),
        (["--from", "dit", "a", "b.pt"], "need out ending in .safetensors"),
        (["--from", "dit", "a", "b", "--dtype", "int8"], "dtype='int8'"),
        (["--from", "dit", "a", "b", "--option", "heads"], "got 'heads'. Write"),
        (["--to", "inception", "a", "b"], "need a format that is written"),
        (["--to", "dit", "a", "b"], "need an existing file, got path='a'"),
        (["--form", "dit", "a", "b"], "convert: one of the arguments --from --to"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, words, line):
    assert line in refused(monkeypatch, capsys, *words)


def test_help_lists_the_formats(monkeypatch, capsys):
    with pytest.raises(SystemExit) as error:
        call(monkeypatch, "--help")
    assert error.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told and form.about in told for name, form in FORMATS.items())
