"""Inputs of the cases: sound files, and odd ones of every format that is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 8
FIELDS = '''
"""Sets one field of a config from the argument: "demo:batch_size=None"."""
import runpy
from pathlib import Path

def get_config(arg):
    name, _, rest = arg.partition(":")
    field, _, text = rest.partition("=")
    config = holder = runpy.run_path(f"CONFIGS/{name}.py")["get_config"]("tiny")
    *outer, last = field.split(".")
    for one in outer:
        holder = getattr(holder, one)
    setattr(holder, last, eval(text))
    return config
'''
CONFIGS = {
    "none": "def get_config(arg=''):\n    return None\n",
    "dict": "def get_config(arg=''):\n    return dict(seed=0)\n",
    "text": "def get_config(arg=''):\n    return 'x'\n",
    "class": "from jaxguide.sample.config import SampleConfig as get_config\n"
    "get_config = lambda arg='': SampleConfig\n",
    "raises": "def get_config(arg=''):\n    raise RuntimeError('two\\nlines')\n",
    "exits": "raise SystemExit(0)\n",
    "syntax": "def get_config(:\n",
    "nothing": "",
    "number": "get_config = 3\n",
    "three": "def get_config(a, b, c):\n    return None\n",
    "loops": "def get_config(arg=''):\n    return get_config(arg)\n",
    "binary": "\0\1\2",
    "missing": "import nosuchmodule\n",
}


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def _header(shape: str, descr: str = "'|u1'", fortran: str = "False") -> bytes:
    """An array that says of itself what it is not."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def images(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def odd_npz(rng: np.random.Generator) -> dict[str, bytes]:
    """Files that hold no images with labels, by what is wrong."""
    x, y = images(rng), np.arange(40) % 4
    sound = _npz(x=x, y=y, arr_0=x)

    def with_x(x: Any, y: np.ndarray = y) -> bytes:
        return _npz(x=x, y=y, arr_0=x)

    def with_header(header: bytes) -> bytes:
        return _zip(x=header + bytes(64), y=_npy(y), arr_0=header + bytes(64))

    damaged = bytearray(sound)
    for place in rng.integers(200, len(damaged) - 200, 40):
        damaged[place] ^= 255
    return {
        "empty": b"",
        "text": b"what is this\n",
        "zip of nothing": _zip(),
        "cut": sound[: len(sound) // 2],
        "cut late": sound[:-30],
        "cut early": sound[:40],
        "flipped": bytes(damaged),
        "npy": _npy(x),
        "objects": with_x(np.array([{1: 2}] * 40, object)),
        "text array": with_x(np.array(["a"] * 40)),
        "complex": with_x(x.astype(np.complex64)),
        "nan": with_x(np.full(x.shape, np.nan, np.float32)),
        "inf": with_x(np.full(x.shape, np.inf, np.float32)),
        "large": with_x(np.full(x.shape, 1e30, np.float32)),
        "flat": with_x(x.reshape(40, -1)),
        "five axes": with_x(x[..., None, None]),
        "no images": with_x(x[:0], y[:0]),
        "no pixels": with_x(x[:, :0]),
        "scalar": with_x(np.uint8(3)),
        "five channels": with_x(np.concatenate([x, x[..., :2]], -1)),
        "only z": _npz(z=x),
        "36 GiB": with_header(_header("(1000000, 64, 64, 9)")),
        "negative shape": with_header(_header("(-3, 8, 8, 3)")),
        "no shape": with_header(_header("'x'")),
        "odd type": with_header(_header("(4,)", "'<Q99'")),
        "cut header": _zip(x=_header("(4,)")[:20], y=_npy(y), arr_0=b"\x93NUMPY"),
    }


def odd_labels(rng: np.random.Generator) -> dict[str, bytes]:
    """Files whose labels are none."""
    x = images(rng)
    wrong = {
        "negative": np.arange(40) - 3,
        "huge": np.full(40, 600_000_000),
        "fractions": np.linspace(0, 1, 40),
        "nan": np.full(40, np.nan),
        "text": np.array(["a"] * 40),
        "two axes": np.zeros((40, 2), int),
        "few": np.zeros(7, int),
        "many": np.zeros(99, int),
        "objects": np.array([None] * 40, object),
        "unsigned": np.full(40, 2**64 - 1, np.uint64),
    }
    return {f"labels {name}": _npz(x=x, y=y) for name, y in wrong.items()}


def odd_pictures(rng: np.random.Generator) -> dict[str, bytes]:
    """Pictures that cannot be read."""
    stream = io.BytesIO()
    Image.fromarray(images(rng, 1)[0]).save(stream, "png")
    sound = stream.getvalue()
    bomb = bytearray(sound)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    return {
        "empty": b"",
        "text": b"no picture",
        "cut": sound[:-40],
        "header": sound[:20],
        "bomb": bytes(bomb),
        "flipped": sound[:60] + bytes(40) + sound[100:],
    }


def write(folder: Path, checkpoint: Callable[[Path], object], configs: Path) -> None:
    """Everything that the cases read, in `folder`."""
    rng = np.random.default_rng(0)
    x = images(rng)
    checkpoint(folder / "net.safetensors")
    np.savez(folder / "data.npz", x=x[..., :1], y=np.arange(40) % 4)
    np.savez(folder / "color.npz", x=x, y=np.arange(40) % 4)
    np.savez(folder / "gen.npz", arr_0=x)
    (folder / "field.py").write_text(FIELDS.replace("CONFIGS", str(configs)))
    for name, text in CONFIGS.items():
        (folder / f"config_{name}.py").write_text(text)
    for name, content in {**odd_npz(rng), **odd_labels(rng)}.items():
        (folder / f"{name.replace(' ', '_')}.npz").write_bytes(content)
    for name, content in odd_pictures(rng).items():
        for label in ("cat", "dog"):
            place = folder / f"pictures_{name}" / label
            place.mkdir(parents=True)
            (place / "1.png").write_bytes(content)
    (folder / "pictures_none" / "cat").mkdir(parents=True)
    (folder / "hollow").mkdir()
