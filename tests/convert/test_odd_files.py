"""Odd files of others: read with the right values, or refused in one line."""

import json
import os
import pathlib
import stat

import jax
import numpy as np
import pytest
from safetensors.numpy import save, save_file

from jaxguide.convert import __main__ as convert, read_published
from jaxguide.convert.tensors import open_tensors, table
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.models import load_weights, safetensors_file
from tests import odd_files
from tests.odd_files import joined, parsed, published, with_arrays

THEIRS = published()
CONTENT = save(THEIRS)
QKV = "blocks.1.attn.qkv.weight"
A = np.arange(3.0)


def before(prefix, **more):
    """The arrays with something before their names, and others beside them."""
    return {prefix + name: value for name, value in THEIRS.items()} | more


def tried(path, **options):
    """The weights, held against the arrays that they are of."""
    weights = read_published(path, "sit", heads=2, **options)
    ours = weights.params["blocks"]["qkv"]["kernel"][1]
    np.testing.assert_array_equal(ours, THEIRS[QKV].T)
    return weights


def refused(path, words, kind=InputError, **options):
    with pytest.raises(kind, match=words) as error:
        read_published(path, "sit", **{"heads": 2} | options)
    text = str(error.value)
    assert "\n" not in text and path.name in text and len(text) < 900, text


def as_type(dtype, **more):
    return {n: v.astype(dtype) for n, v in THEIRS.items()} | more


READ = {
    "AveragedModel": (before("module.", n_averaged=np.array(1)), "module.", {}),
    "counters of one": (before("", step=np.array([3]), decay=np.array(0.9)), "", {}),
    "compiled inside": (
        {n.replace("blocks.1.", "blocks.1._orig_mod."): v for n, v in THEIRS.items()},
        "",
        {},
    ),
    "compiled and parallel": (before("module._orig_mod."), "module._orig_mod.", {}),
    "Lightning": (before("model."), "model.", {}),
    "beside a loss": (
        before("model.", **{"loss.vgg.weight": np.ones(3, np.float32)}),
        "model.",
        {},
    ),
    "EMA of a wrapper": (
        before("ema_model.module.", **before("online_model.module.")),
        "ema_model.module.",
        {"key": "ema_model"},
    ),
    "of another name": (before("my.net."), "my.net.", {"prefix": "my.net."}),
}


@pytest.mark.parametrize("name", READ)
def test_what_stands_before_the_names_is_cut_and_said(tmp_path, name):
    arrays, cut, options = READ[name]
    path = tmp_path / "odd.safetensors"
    save_file(arrays, str(path))
    tried(path, **options)
    found = open_tensors(path, **options)
    assert set(found.names) == set(THEIRS) and found.network.cut == cut
    told = table(found).splitlines()[-1]
    assert (f"cut {cut!r} before the names" in told) == bool(cut)
    for other in set(arrays) - {n for n in arrays if "mod" in n or n in THEIRS}:
        assert other in told or other.startswith("my.net."), told


def poison(arrays):
    arrays[QKV][0, :2] = np.nan


TWO = "need one network, got those under \\['ema_model', 'model'\\].*--key ema_model"
# Bytes of a file, and what is said of it.
REFUSED = {
    "two networks": (save(before("model.", **before("ema_model."))), TWO),
    "an unknown prefix": (save(before("my.")), "--option prefix=my. FILE OUT"),
    "two of one name": (save(before("", **before("module."))), "need one array"),
    "no arrays": (save({}), "need named arrays, got none"),
    "counters only": (save({"step": np.array(1)}), "need named arrays, got none"),
    "int8": (save(as_type("int8")), "floating point.* pos_embed int8.*scales"),
    "uint8": (save(as_type("uint8")), "floating point.* pos_embed uint8"),
    "bool": (save(as_type("bool")), "floating point.* pos_embed bool"),
    "complex": (save(as_type("complex64")), "floating point.* pos_embed complex64"),
    "scales beside": (
        save(as_type("float16", **{f"{QKV}_scale": np.float32([1])})),
        f"floating point.*{QKV}_scale. Quantised",
    ),
    "cut": (CONTENT[:-7], "need a safetensors file.*not fully covered"),
    "cut in the header": (CONTENT[:100], "Its header would have .* bytes"),
    "longer": (CONTENT + b"1234", "not fully covered"),
    "a lying length": (joined(b"{}", b"", 2**62), "Its header would have 4,611,"),
    "empty": (b"", "of 0 bytes"),
    "text": (b"no arrays here", "need a safetensors file"),
    "a list": (joined(b"[1]", b""), "need a safetensors file"),
    "deep": (joined(b'{"a":' * 5000, b""), "need a safetensors file"),
    "four bits": (
        joined({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"ab"),
        "need an array x_embedder.proj.weight",
    ),
    "a bomb": (
        joined(
            {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, b""
        ),
        "need a safetensors file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_and_strange_files_are_refused(tmp_path, name):
    content, words = REFUSED[name]
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    refused(path, words)


def test_arrays_of_one_name_or_place_are_refused(tmp_path):
    header, data = parsed(CONTENT)
    path = tmp_path / "odd.safetensors"
    one = json.dumps(header).encode()
    twin = f'{{"{QKV}": {json.dumps(header[QKV])}, '.encode()
    path.write_bytes(joined(twin + one[1:], data))
    refused(path, f"'{QKV}' twice")
    header[QKV]["data_offsets"] = header["pos_embed"]["data_offsets"]
    path.write_bytes(joined(header, data))
    refused(path, "need a safetensors file")


def test_a_header_that_is_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_file, "LONGEST_HEADER", 1000)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(CONTENT)
    refused(path, "Its header would have")


@pytest.mark.parametrize("code", ["F8_E4M3", "F8_E5M2"])
def test_eight_bits_of_floating_point_are_read_as_numbers(tmp_path, code):
    name = safetensors_file.TYPES[code]
    small = {n: v.astype(name) for n, v in THEIRS.items()}
    header, at = {}, 0
    for key, value in small.items():
        place = [at, at + value.size]
        header[key] = {"dtype": code, "shape": value.shape, "data_offsets": place}
        at += value.size
    path = tmp_path / "odd.safetensors"
    path.write_bytes(joined(header, b"".join(v.tobytes() for v in small.values())))
    ours = read_published(path, "sit", heads=2).params["blocks"]["qkv"]["kernel"][1]
    np.testing.assert_array_equal(ours, small[QKV].T.astype(np.float32))
    assert np.abs(ours - THEIRS[QKV].T).max() < 0.05 and ours.std() > 0.05


def test_values_that_are_no_numbers_are_counted(tmp_path):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(with_arrays(CONTENT, poison))
    refused(path, f"got 2 of 1728 values .* in {QKV}", NonFiniteError)
    save_file(THEIRS | {"pos_embed": THEIRS["pos_embed"] + 1e6}, str(path))
    tried(path)
    refused(path, "too large for float16", NonFiniteError, dtype="float16")
    save_file(as_type("float64", pos_embed=np.full((1, 16, 24), 1e300)), str(path))
    refused(path, "too large for float32", NonFiniteError)


def index(folder, **content):
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps(content or [1]))
    return path


def test_an_index_has_to_fit_its_shards(tmp_path):
    names = list(THEIRS)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, inside in parts.items():
        save_file({n: THEIRS[n] for n in inside}, str(tmp_path / file))
    places = {n: file for file, inside in parts.items() for n in inside}
    tried(index(tmp_path, weight_map=places))
    for words, content in {
        "with a list": {},
        "without": {"metadata": {}},
        "path=.* without": {"weight_map": ["a.safetensors"]},
        "of names to files": {"weight_map": {"a": 1}},
        "need shards beside": {"weight_map": places | {"z": "../a.safetensors"}},
        "beside the index, got '/a": {"weight_map": places | {"z": "/a.safetensors"}},
        "none of z in": {"weight_map": places | {"z": "a.safetensors"}},
    }.items():
        refused(index(tmp_path, **content), words)
    path = index(tmp_path, weight_map=places | {"z": "c.safetensors"})
    with pytest.raises(InputError, match=r"existing file .*c\.safetensors"):
        read_published(path, "sit", heads=2)
    save_file({"pos_embed": THEIRS["pos_embed"]}, str(tmp_path / "c.safetensors"))
    refused(
        index(tmp_path, weight_map=places | {"pos_embed": "c.safetensors"}), "two s"
    )


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "p.safetensors")
    refused(tmp_path / "p.safetensors", "a pipe, device or socket")
    os.mkfifo(tmp_path / "p.pt")
    refused(tmp_path / "p.pt", "a pipe, device or socket")
    (tmp_path / "d.safetensors").mkdir()
    refused(tmp_path / "d.safetensors", "need a folder with a .safetensors")
    (tmp_path / "z.safetensors").symlink_to("/dev/zero")
    refused(tmp_path / "z.safetensors", "a pipe, device or socket")


def command(capsys, *words):
    """What the command says when it refuses."""
    with pytest.raises(InputError) as error:
        convert.run([str(word) for word in words])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_is_overwritten_before_all_is_checked(tmp_path, capsys):
    theirs, out = tmp_path / "theirs.safetensors", tmp_path / "out.safetensors"
    theirs.write_bytes(CONTENT)
    words = ["--from", "sit", theirs, out, "--option", "heads=2"]
    convert.run([str(word) for word in words])
    good = out.read_bytes()
    told = command(capsys, *words[:3], theirs, *words[4:])
    assert "need another file than is read" in told
    assert theirs.read_bytes() == CONTENT
    theirs.write_bytes(with_arrays(CONTENT, poison))
    assert "need finite weights" in command(capsys, *words)
    told = command(capsys, "--from", "sit", out, tmp_path / "o.safetensors")
    assert "converted already" in told
    told = command(capsys, *words[:1], "taesd", *words[2:4])
    assert "looks like dit or sit" in told and "Write --from dit" in told
    assert out.read_bytes() == good and not list(tmp_path.glob("*.part"))
    (tmp_path / "folder.safetensors").mkdir()
    told = command(capsys, *words[:3], tmp_path / "folder.safetensors")
    assert "a folder is in the way" in told


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("heads=abc", "need an integer for heads"),
        ("heads=5", "multiple of 4 and of heads=5"),
        ("heads=-2", "need heads >= 1"),
        ("image_size=7", "divisible by patch=2"),
        ("kind=noisy", "Did you mean 'noise'"),
        ("noise_path=lineer", "Did you mean 'linear'"),
        ("width=3", "got name='width'"),
        ("dtype=float16", "have flags of their own"),
        ("heads=2=3", "need an integer for heads"),
        ("prefix=nothing.", "under prefix='nothing.'"),
    ],
)
def test_nonsense_in_an_option_is_one_line(tmp_path, capsys, option, words):
    (tmp_path / "theirs.safetensors").write_bytes(CONTENT)
    out = tmp_path / "o.safetensors"
    given = [] if option.startswith(("heads", "dtype")) else ["--option", "heads=2"]
    told = command(
        capsys, "--from", "sit", tmp_path / "theirs.safetensors", out,
        "--option", option, *given,
    )  # fmt: skip
    assert words in told and not out.exists()


def test_files_have_the_rights_of_any_new_file(tmp_path):
    theirs, out = tmp_path / "theirs.safetensors", tmp_path / "out.safetensors"
    theirs.write_bytes(CONTENT)
    convert.import_file("sit", theirs, out, heads=2)
    convert.export_file("sit", out, tmp_path / "back.safetensors")
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1, modes
    assert load_weights(out).model.heads == 2


MORE = [pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 20)]


@pytest.mark.parametrize("seed", [0, *MORE])
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path, seed):
    refusals, rng = 0, np.random.default_rng(seed)
    for name, path in odd_files.weight_files(tmp_path, rng, 80, ("published",)):
        if path.suffix == ".pt" and not seed:  # importing PyTorch takes seconds
            continue
        try:
            weights = read_published(path, "sit", heads=2)
        except InputError as error:
            assert "\n" not in str(error), name
            refusals += 1
            continue
        leaves = jax.tree.leaves(weights.params)
        assert all(np.isfinite(leaf).all() for leaf in leaves), name
    assert refusals > 80


@pytest.mark.exhaustive
def test_folders_of_diffusers_are_read_or_refused(tmp_path):
    refusals, rng = 0, np.random.default_rng(0)
    out = tmp_path / "out.safetensors"
    for format, path in odd_files.published_folders(tmp_path, rng, 300):
        given = {} if path.is_dir() or format == "taesd" else {"family": "sd"}
        try:
            convert.import_file(format, path, out, **given)
        except InputError as error:
            assert "\n" not in str(error), path
            refusals += 1
    assert 150 < refusals < 300


class Stranger:
    """Anything that is no tensor; it leaves a trace if it is made."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def in_torch():
    """State dicts by name, and what is to become of them: a key, or words."""
    import torch

    state = {name: torch.from_numpy(value) for name, value in THEIRS.items()}
    ema = {f"ema_model.module.{name}": value for name, value in state.items()}
    model = {f"model.{name}": value for name, value in state.items()}
    wide, flat = torch.zeros(1), torch.ones(3)
    optimizer = {"state": {0: {"exp_avg": flat}}, "param_groups": [{"lr": 1e-4}]}
    read = {
        "trainer": ({"model": model, "ema": state, "opt": optimizer}, "ema"),
        "Lightning": ({"state_dict": model, "epoch": 3, "callbacks": {}}, "state_dict"),
        "another key": ({"weights": state}, "weights"),
        "a key in a key": ({"run": {"net": state}}, "run"),
        "NumPy beside": ({"model": state, "loss": np.float64(3), "h": A}, "model"),
        "a path beside": ({"ema": state, "file": pathlib.Path("x")}, "ema"),
        "parameters": ({n: torch.nn.Parameter(v) for n, v in state.items()}, ""),
        "averaged": ({**ema, "n_averaged": torch.tensor([4])}, ""),
        "four bytes": ({n: v.double() for n, v in state.items()}, ""),
    }
    odd = {
        "need one network.*--key ema_model": {**ema, **model},
        "need one network.*--key model_ema": {"model": state, "model_ema": state},
        "need named arrays, got none": {},
        "need named arrays, got none in": {"model": {"ema": {}}},
        "with a list": [flat],
        "with a Tensor": flat,
        "floating point.* pos_embed int8": {n: v.char() for n, v in state.items()},
        "layout torch.sparse": state | {"pos_embed": state["pos_embed"].to_sparse()},
        "without values": state | {"pos_embed": state["pos_embed"].to("meta")},
        "16,000,000,000 values, more": {"x": wide.expand(10**9, 4, 2, 2)},
        "weights_only=True.*system": {"model": state, "x": Stranger()},
    }
    cycle = {"x": {}}
    cycle["x"]["x"] = cycle
    return torch, read, {**odd, "got none": cycle}


@pytest.mark.exhaustive
def test_files_of_pytorch_are_read_or_refused(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason=".pt files are PyTorch's")
    monkeypatch.chdir(tmp_path)
    torch, read, odd = in_torch()
    path = tmp_path / "odd.pt"
    for name, (content, key) in read.items():
        torch.save(content, path)
        assert tried(path).note.get("key", "") == key, name
    for words, content in odd.items():
        torch.save(content, path)
        refused(path, words)
    assert not (tmp_path / "executed").exists()
    torch.save({"model": read["parameters"][0]}, path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        cut = bytearray(whole[: int(rng.integers(len(whole)))])
        cut[int(rng.integers(len(cut)))] ^= 0x40
        path.write_bytes(cut)
        refused(path, "is damaged|of 0 bytes")
