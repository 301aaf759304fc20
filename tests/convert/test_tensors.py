"""Arrays of others' files: found, read, named in errors."""

import argparse
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxguide.convert import torch_file
from jaxguide.convert.tensors import check, open_tensors, table, take

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.ones(4, np.float16)


def written(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(arrays, str(path))
    return path


def refused(words, *args, **named):
    with pytest.raises(ValueError, match=words) as error:
        open_tensors(*args, **named)
    assert "\n" not in str(error.value)


def test_a_file_is_read_array_by_array_as_stored(tmp_path):
    found = open_tensors(written(tmp_path / "a.safetensors", a=A, b=B))
    assert set(found.names) == {"a", "b"} and found.config == {} and found.key == ""
    assert found.shape("a") == (2, 3) and found.dtype("b") == "float16"
    assert found.get("b").dtype == np.float16
    np.testing.assert_array_equal(found.get("a"), A)
    with pytest.raises(ValueError, match="need a name of a.safetensors, got name='c'"):
        found.get("c")


def test_a_file_is_opened_anew_when_much_was_read(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason=".pt files are PyTorch's")
    monkeypatch.setattr(torch_file, "REOPEN", 30)
    state = {"a": torch.from_numpy(A), "b": torch.from_numpy(B)}
    torch.save(state, tmp_path / "a.pt")
    found = open_tensors(tmp_path / "a.pt")
    for _ in range(3):
        np.testing.assert_array_equal(found.get("a"), A)
        np.testing.assert_array_equal(found.get("b"), B)


def test_shards_and_components_of_folders_are_found(tmp_path):
    one = written(tmp_path / "vae" / "one.safetensors", a=A)
    two = written(tmp_path / "vae" / "two.safetensors", b=B)
    index = {"weight_map": {"a": one.name, "b": two.name}}
    (tmp_path / "vae" / "m.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "vae" / "config.json").write_text('{"act": "silu"}')
    (tmp_path / "model_index.json").write_text('{"vae": ["x", "y"], "scheduler": []}')
    found = open_tensors(tmp_path, component="vae")
    assert set(found.names) == {"a", "b"} and found.config == {"act": "silu"}
    np.testing.assert_array_equal(found.get("b"), B)
    assert set(open_tensors(tmp_path / "vae").names) == {"a", "b"}
    refused(
        r"need a component of \['vae'\], got component='x'", tmp_path, component="x"
    )


def test_refused_in_one_line(tmp_path):
    refused("need an existing file or folder", tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no arrays")
    refused("need a safetensors file", tmp_path / "text.safetensors")
    (tmp_path / "a.ckpt").write_text("")
    refused(r"need a .safetensors, .pt, .pth", tmp_path / "a.ckpt")
    (tmp_path / "two").mkdir()
    refused("need a folder with a .safetensors", tmp_path / "two")
    written(tmp_path / "two" / "a.safetensors", a=A)
    written(tmp_path / "two" / "b.safetensors", a=A)
    refused(r"need one file of weights.*a.safetensors, b.safetensors", tmp_path / "two")
    (tmp_path / "two" / "config.json").write_text("{")
    refused("need JSON", tmp_path / "two")


def test_half_precision_beside_the_usual_file_is_left_out(tmp_path):
    written(tmp_path / "model.safetensors", a=A)
    written(tmp_path / "model.fp16.safetensors", a=A.astype(np.float16))
    assert open_tensors(tmp_path).dtype("a") == "float32"


def test_one_error_names_all_that_is_wrong(tmp_path):
    found = open_tensors(written(tmp_path / "a.safetensors", a=A, b=B, extra=B, c=B))
    wanted = {"a": (3, 2), "b": (4,), "missing": (1,)}
    with pytest.raises(ValueError) as error:
        check("read", found, wanted, ["c*"])
    text = str(error.value)
    assert "\n" not in text and "1 missing (missing); 1 extra (extra);" in text
    assert "1 of another shape (a [2, 3] instead of [3, 2])" in text
    many = {f"n{i}": (1,) for i in range(20)}
    with pytest.raises(ValueError, match=r"20 missing \(n0, .*, n5, \.\.\.\)"):
        take("read", found, many, ["*"])
    taken = take("read", found, {"b": (4,)}, ["a", "c", "extra"])
    assert taken["b"].dtype == np.float32


def test_long_tables_have_one_line_per_kind_of_array(tmp_path):
    arrays = {f"blocks.{i}.w": A for i in range(12)} | {"last": B}
    found = open_tensors(written(tmp_path / "a.safetensors", **arrays))
    assert len(table(found).splitlines()) == 14
    short = table(found, longest=10).splitlines()
    assert len(short) == 3 and short[2] == "13 arrays, 76 values"
    assert short[0].split() == ["blocks.*.w", "[2,", "3]", "float32", "x", "12"]


def test_training_checkpoints_give_their_average(tmp_path):
    torch = pytest.importorskip("torch", reason=".pt files are PyTorch's")
    state = {"module.w": torch.ones(2, 2).bfloat16(), "module.b": torch.zeros(2)}
    average = {name: 3 * value + 1 for name, value in state.items()}
    rest = {"opt": {"lr": 1e-4}, "args": argparse.Namespace(model="SiT-XL/2")}
    torch.save({"model": state, "ema": average, **rest}, tmp_path / "a.pt")
    found = open_tensors(tmp_path / "a.pt")
    assert found.key == "ema" and set(found.names) == {"w", "b"}
    assert found.dtype("w") == "bfloat16" and np.all(found.get("w") == 4)
    assert np.all(open_tensors(tmp_path / "a.pt", key="model").get("b") == 0)
    refused(r"need a key of \['ema', 'model'\]", tmp_path / "a.pt", key="emma")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert np.all(open_tensors(tmp_path / "old.pt").get("w") == 1)


class Stranger:
    """Anything that is no tensor."""


def test_nothing_is_unpickled_that_is_not_safe(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason=".pt files are PyTorch's")
    torch.save({"a": Stranger()}, tmp_path / "a.pt")
    refused("weights_only=True.*Stranger", tmp_path / "a.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    refused("need a file of named tensors, got .* a list", tmp_path / "list.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "list.pt").read_bytes()[:100])
    refused("is damaged", tmp_path / "half.pt")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(r"pip install jaxguide\[torch\]", tmp_path / "list.pt")
