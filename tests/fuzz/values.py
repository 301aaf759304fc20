"""Grammars of values: for the command line, and for config files."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

# Text on a command line that is no value of a type.
WORDS = {
    int: ["None", "", "abc", "1.5", "nan", "1e3", "[1]", "9" * 30, "-" + "9" * 30],
    float: ["None", "", "abc", "nan", "inf", "-inf", "1e999", "(1,)", "1,5"],
    bool: ["None", "", "2", "maybe", "1.0"],
    tuple: ["(1,", "(None,)", "{", "((),)"],
}
# Numbers that may be out of range: whatever happens, it is no traceback.
EDGES = {int: ["0", "-1", "1" + "0" * 11], float: ["0", "-1", "1e30", "-1e-30"]}
# Text that no table of names has, that is no file, and that no parser takes.
NAMES = [
    "nosuch",
    "name(",
    "name(x=1)",
    "euler(eta=nan)",
    "os:system",
    "3",
    "{}",
    "%s%d",
    "\u00df\u4e2d",
    "a" * 3000,
    "a\nb",
    "__import__('os')",
]
# Fields of text in which NAMES mean nothing.
TABLES = {
    "checkpoint", "weak_checkpoint", "autoencoder", "sampler", "grid", "batched",
    "dtype", "label_order", "rounding", "labels", "negative", "also", "data.name",
    "data.path", "loss.name", "loss.path", "loss.kind", "loss.t_sampling",
    "loss.reference", "optimizer.schedule", "start_from", "best_by", "parallel",
    "samples", "reference", "metrics", "network", "weights", "protocol", "encoder",
    "format", "preview_autoencoder", "model.dtype",
}  # fmt: skip
# Python in a config file that is no value of a type.
EXPRESSIONS = {
    int: ["None", "'2'", "[1]", "{}", "object()", "2.5", "True", "float('nan')", "1j"],
    float: ["None", "'2'", "[1.0]", "object()", "float('nan')", "float('inf')", "True"],
    bool: ["None", "'yes'", "2", "[]", "0.0"],
    str: ["None", "3", "['a']", "b'x'", "object()", "print", "float('nan')"],
    tuple: ["3", "'x'", "{}", "(object(),)", "(None,)", "print"],
    list: ["3", "None", "{}", "[3]", "[None]", "['cfg']", "[{}]", "print"],
    dict: ["3", "None", "[]", "{1: 2}", "{'x': object()}", "{None: (1,)}"],
}
GUIDANCE = [
    "dict()", "dict(name=None)", "dict(name='nosuch')", "dict(name='cfg')",
    "dict(name='cfg', scale=None)", "dict(name='cfg', scale='x')",
    "dict(name='cfg', scale=float('nan'))", "dict(name='cfg', scale=float('inf'))",
    "dict(name='cfg', scale=[1, 2])", "dict(name='cfg', scale=object())",
    "dict(name='cfg', scale=2, t_lo=0.9, t_hi=0.1)",
    "dict(name='cfg', scale=2, t_lo=float('nan'))", "dict(name='cfg', scale=2, t_hi=7)",
    "dict(name='cfg', scale='nosuch(1.0)')", "dict(name='cfg', scale='cosine()')",
    "dict(name='cfg', scale='cosine(1, 2, 3, 4, 5, 6)')",
    "dict(name='cfg', scale=lambda t: float('nan'))",
    "dict(name='cfg', scale=lambda: 1)", "dict(name='cfg', scale='os:system')",
    "dict(name='cfg', scale='nosuch.module:function')", "dict(name='cfg', x=1)",
    "dict(name='sg', weight=1, shift=float('nan'))", "dict(name='sg_prev')",
    "dict(name='s2', weight=1, drop=2.0)", "dict(name='s2', weight=1, drop=-1.0)",
    "dict(name='s2', weight=1, num_masks=0)",
    "dict(name='s2', weight=1, exclude=(99,))",
    "dict(name='apg', scale=2, momentum=float('nan'))", "dict(name='seg')",
    "dict(name='autoguidance', scale=2.0)", "dict(name='compose', weight=1)",
    "dict(name='pag', weight=1, layers=(99,))",
    "dict(name='pag', weight=1, layers='x')", "dict(name='fdg', scales=())",
    "dict(name='energy', weight=1, function='os:system')",
    "dict(name='icg', scale=2, num_classes=0)", "dict(name='rescale', amount='x')",
    "dict(name='nag', scale='x')", "dict(name='guided_channels', number=-1)",
    "dict(name='guided_channels', number=99)", "dict(name='rescale')",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a config.

    Attributes:
        path: "model.width".
        kind: int, float, bool, str, tuple, list, dict or a dataclass.
    """

    path: str
    kind: type


def fields(config: type, prefix: str = "") -> Iterator[Field]:
    """All fields of a config dataclass, those of its dataclasses too."""
    for name, hint in typing.get_type_hints(config).items():
        kind: Any = typing.get_origin(hint) or hint
        yield Field(prefix + name, kind)
        if dataclasses.is_dataclass(kind):
            yield from fields(typing.cast(type, kind), f"{prefix}{name}.")
