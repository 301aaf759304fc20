"""Files of weights that are damaged, foreign or strange: a grammar to draw from.

A file is a sound one with one edit: bytes cut off or flipped, the header of safetensors
changed, the JSON text of our files changed, arrays of another type or value.
"""

import copy
import json
import os
import struct

import jax
import numpy as np
from safetensors.numpy import load_file, save, save_file

from jaxguide.convert.autoencoder_import import export_autoencoder
from jaxguide.convert.published import _layout
from jaxguide.models import (
    Autoencoder,
    DiTConfig,
    Weights,
    autoencoder_kl,
    init,
    save_autoencoder,
    save_weights,
    tiny_autoencoder,
)
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.convolution import parameter_shapes
from jaxguide.models.tiny_autoencoder import TinyAutoencoderConfig

MODEL = DiTConfig(8, 4, 2, 24, 2, 2, num_classes=5)
KL = AutoencoderKLConfig(widths=(8, 8), layers=1, groups=4)
TINY = TinyAutoencoderConfig(4, 4, (0, 1), (1, 0))
FILE_OF_DIFFUSERS = "diffusion_pytorch_model.safetensors"
NAMES = ("bag", "coat", "shoe", "hat", "sock")
# What may stand where a number, a name or a list should.
VALUES = (None, True, -1, 0, 7, 10**9, 2**70, 0.5, 1e999, "", "x", "2", [], [3], {})


def published(seed=0):
    """Random arrays of a network like `MODEL`, as SiT names and shapes them."""
    rng = np.random.default_rng(seed)
    places = _layout("sit", MODEL, "velocity", {})
    return {p.name: rng.normal(0, 0.1, p.shape).astype(np.float32) for p in places}


def drawn(shapes, seed=0):
    """Parameters of these shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes
    )


def weights():
    """Weights of `MODEL`, as our files hold them."""
    params = drawn(parameter_shapes(init, MODEL))
    return Weights(params, MODEL, "linear", "velocity", NAMES, {"steps": 7})


def autoencoder(config):
    """An autoencoder of random weights."""
    module = autoencoder_kl if config is KL else tiny_autoencoder
    return Autoencoder(config, drawn(parameter_shapes(module.init, config)), 0.5, 0.25)


# Sound files by kind: ours of three formats, and a published SiT.
SOUND = {
    "weights": lambda path: save_weights(path, weights(), dtype="float32"),
    "kl": lambda path: save_autoencoder(path, autoencoder(KL)),
    "tiny": lambda path: save_autoencoder(path, autoencoder(TINY)),
    "published": lambda path: path.write_bytes(save(published())),
}


def sound(folder, kind):
    """Bytes of a sound file."""
    SOUND[kind](folder / "sound")
    return (folder / "sound").read_bytes()


def parsed(content):
    """Header as a dict, and the bytes behind it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, data, length=None):
    """The file of a header, a dict or bytes, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def with_about(content, change):
    """A file of ours whose JSON text `change(about)` has changed in place."""
    header, data = parsed(content)
    about = json.loads(header["__metadata__"]["jaxguide"])
    about = change(about) or about
    header["__metadata__"]["jaxguide"] = json.dumps(about)
    return joined(header, data)


def with_arrays(content, change):
    """A file whose arrays `change(arrays)` has changed in place; metadata stay."""
    header, data = parsed(content)
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            part = data[slice(*entry["data_offsets"])]
            arrays[name] = np.frombuffer(part, "<f4").reshape(entry["shape"]).copy()
    arrays = change(arrays) or arrays
    return save(arrays, metadata=header.get("__metadata__"))


def _truncated(content, rng):
    return content[: int(rng.integers(len(content)))]


def _longer(content, rng):
    return content + rng.bytes(int(rng.integers(1, 40)))


def _flipped(content, rng):
    """A few bytes of the header are others."""
    (length,) = struct.unpack("<Q", content[:8])
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        changed[int(rng.integers(8 + length))] ^= int(rng.integers(1, 256))
    return bytes(changed)


def _flipped_data(content, rng):
    (length,) = struct.unpack("<Q", content[:8])
    changed = bytearray(content)
    for place in rng.integers(8 + length, len(content), 20):
        changed[int(place)] = 0xFF
    return bytes(changed)


def _entry(content, rng):
    """One array of the header has another type, shape or place."""
    header, data = parsed(content)
    names = [name for name in header if name != "__metadata__"]
    entry = header[names[int(rng.integers(len(names)))]]
    field = ("dtype", "shape", "data_offsets")[int(rng.integers(3))]
    types = ("F64", "F16", "BF16", "I8", "U8", "F8_E4M3", "BOOL", "C64", "F4", "I32")
    others = {
        "dtype": (*types, None, 4),
        "shape": ([], [1], entry["shape"][::-1], [2**40], [-1], [*entry["shape"], 1]),
        "data_offsets": ([0, 0], [0, 2**50], [8, 4], [-8, 0], []),
    }[field]
    entry[field] = others[int(rng.integers(len(others)))]
    return joined(header, data)


def _names(content, rng):
    """One array is called otherwise, missing, or there twice."""
    header, data = parsed(content)
    names = [name for name in header if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    entry = header.pop(name)
    way = int(rng.integers(4))
    if way == 0:
        header[f"{name}.more"] = entry
    elif way == 1:
        header[names[int(rng.integers(len(names)))]] = entry
    elif way == 2:
        twin = f'"{name}": {json.dumps(entry)}, '.encode() * 2
        return joined(b"{" + twin + json.dumps(header).encode()[1:], data)
    return joined(header, data)


def _cast(content, rng):
    """All arrays have another type."""
    types = ("float64", "float16", "int8", "int32", "uint8", "bool", "complex64")
    dtype = types[int(rng.integers(len(types)))]
    return with_arrays(content, lambda a: {n: v.astype(dtype) for n, v in a.items()})


def _poisoned(content, rng):
    """One value is NaN or infinite."""

    def change(arrays):
        name = list(arrays)[int(rng.integers(len(arrays)))]
        bad = (np.nan, np.inf, -np.inf)[int(rng.integers(3))]
        arrays[name].flat[int(rng.integers(arrays[name].size))] = bad

    return with_arrays(content, change)


def _prefixed(content, rng):
    """Something stands before some or all names, or a number beside them."""
    words = ("module.", "_orig_mod.", "model.", "ema_model.", "net.", "a.", "")
    cut, share = words[int(rng.integers(len(words)))], rng.integers(0, 4) / 3

    def change(arrays):
        new = {(cut if rng.random() <= share else "") + n: v for n, v in arrays.items()}
        return new | {"n_averaged": np.array(int(rng.integers(9)))}

    return with_arrays(content, change)


def _said(content, rng):
    """A field of our JSON text is missing, of another type or another number."""
    header, data = parsed(content)
    if "__metadata__" not in header:
        return _entry(content, rng)
    about = json.loads(header["__metadata__"]["jaxguide"])
    inner = [part for part in about.values() if isinstance(part, dict) and part]
    holder = [about, *inner][int(rng.integers(1 + len(inner)))]
    name = list(holder)[int(rng.integers(len(holder)))]
    value = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    way = int(rng.integers(5))
    if way == 0:
        del holder[name]
    elif way == 1:
        holder[f"{name}s"] = value
    elif way == 2 and type(holder[name]) in (int, float):
        holder[name] *= 2
    else:
        holder[name] = value
    texts = (json.dumps(about), json.dumps([about]), "{", "[" * 5000, "null")
    header["__metadata__"]["jaxguide"] = texts[max(int(rng.integers(12)) - 7, 0)]
    return joined(header, data)


EDITS = (
    _truncated,
    _longer,
    _flipped,
    _flipped_data,
    _entry,
    _names,
    _cast,
    _poisoned,
    _prefixed,
    _said,
)


def _foreign(folder):
    """Paths that hold no weights at all, by what they are."""
    contents = {
        "empty": b"",
        "text": b"no arrays here",
        "zip": b"PK\x03\x04" + bytes(40),
        "pickle": b"\x80\x02}q\x00.",
        "numpy": b"\x93NUMPY\x01\x00v\x00" + b" " * 118,
        "long header": struct.pack("<Q", 2**62) + b"{}",
        "json": b'{"weight_map": []}',
    }
    for name, content in contents.items():
        for suffix in (".safetensors", ".pt", ".pb", ".safetensors.index.json"):
            path = folder / f"{name}{suffix}"
            path.write_bytes(content)
            yield name, path
    (folder / "folder.safetensors").mkdir(exist_ok=True)
    yield "folder", folder / "folder.safetensors"
    if not (pipe := folder / "pipe.safetensors").exists():
        os.mkfifo(pipe)
    yield "pipe", pipe
    yield "missing", folder / "missing.safetensors"


def weight_files(folder, rng, count=200, kinds=tuple(SOUND)):
    """Draws odd files of weights.

    Args:
        folder: where they are written; one is overwritten by the next of its kind.
        rng: NumPy's generator.
        count: files that are drawn from sound ones; what is no file of weights at all
            comes first, once each.
        kinds: of `SOUND`.

    Yields:
        What was done ("kind, edit"), and the path.
    """
    yield from _foreign(folder)
    files = {kind: sound(folder, kind) for kind in kinds}
    for _ in range(count):
        kind = kinds[int(rng.integers(len(kinds)))]
        edit = EDITS[int(rng.integers(len(EDITS)))]
        path = folder / f"{kind}.safetensors"
        path.write_bytes(edit(files[kind], rng))
        yield f"{kind}, {edit.__name__[1:]}", path


def _pick(rng, values):
    values = list(values)
    return values[int(rng.integers(len(values)))]


def _edited(arrays, rng):
    """The arrays with one that is missing, of another shape or called otherwise."""
    name, way = _pick(rng, arrays), int(rng.integers(6))
    one = arrays[name]
    axes = (int(rng.integers(1, 9)),) * int(rng.integers(5))
    others = [
        {},
        {name: one.reshape(-1)},
        {name: one[:0]},
        {name: np.concatenate([one, one])},
        {name: np.ones(axes, np.float32)},
        {f"{name}.x": one},
    ]
    rest = {key: value for key, value in arrays.items() if key != name}
    return rest | others[way]


def published_folders(folder, rng, count=100):
    """Draws odd folders of autoencoders as diffusers has them.

    Args:
        folder: where they are written; one is overwritten by the next.
        rng: NumPy's generator.
        count: how many.

    Yields:
        The format, and the folder or the file in it.
    """
    kinds, name = {"autoencoder-kl": KL, "taesd": TINY}, FILE_OF_DIFFUSERS
    for kind, config in kinds.items():
        export_autoencoder(folder / kind, autoencoder(config))
    odd = folder / "odd"
    odd.mkdir(exist_ok=True)
    for _ in range(count):
        kind = _pick(rng, kinds)
        arrays = load_file(folder / kind / name)
        config = json.loads((folder / kind / "config.json").read_text())
        if rng.random() < 0.7:
            arrays = _edited(arrays, rng)
        else:
            config[_pick(rng, config)] = _pick(rng, VALUES)
        texts = [json.dumps(config)] * 20
        text = _pick(rng, [*texts, "[]", "{", "null", "1", ""])
        save_file(arrays, str(odd / name))
        (odd / "config.json").write_text(text)
        yield kind, _pick(rng, (odd, odd / name))
