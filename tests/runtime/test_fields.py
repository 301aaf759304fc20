"""Fields of configs are held against their annotations, whole, once."""

import dataclasses

import numpy as np
import pytest

import jaxguide as jg
from jaxguide.runtime import values


@dataclasses.dataclass
class Inner:
    rate: float = 0.5


@dataclasses.dataclass
class Config:
    count: int = values.number(2, 1, 9)
    seed: int = values.seed()
    scale: float = 1.0
    name: str = "a"
    yes: bool = False
    names: tuple[str, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    entries: list[dict[str, object]] = dataclasses.field(default_factory=list)
    axes: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_what_fits_is_taken_as_its_type():
    config = Config(
        count=np.int32(3), scale=2, names=["a", "b"], pair=[0, 1], axes={"x": [1, 2]}
    )
    values.check(config)
    assert config.count == 3 and type(config.count) is int
    assert config.scale == 2.0 and type(config.scale) is float
    assert config.names == ("a", "b") and config.axes == {"x": (1.0, 2.0)}
    assert config.pair == (0.0, 1.0) and Config().count == 2


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("count", 0, "need count >= 1, got count=0"),
        ("count", 10, "need count <= 9, got count=10"),
        ("count", 2.0, "need an integer for count"),
        ("count", True, "need an integer for count, got count=True"),
        ("seed", 2**64, "need an integer of 64 bits for seed"),
        ("seed", -1, "need seed >= 0"),
        ("scale", float("nan"), "need a finite number for scale, got scale=nan"),
        ("scale", np.float32("inf"), "need a finite number for scale"),
        ("scale", "2", "need a number for scale, got scale='2'"),
        ("scale", np.ones(2), "need a number for scale"),
        ("name", None, "need a string for name, got name=None"),
        ("name", print, "need a string for name"),
        ("yes", 1, "need True or False for yes"),
        ("names", "ab", "need a tuple for names"),
        ("names", ("a", 3), "need a string for names"),
        ("pair", (1.0,), "need 2 values for pair"),
        ("entries", [3], "need a dict for entries[0]"),
        ("entries", ({},), "need a list for entries"),
        ("axes", {3: (1.0,)}, "need a string for a key of axes"),
        ("axes", {"x": (1.0, None)}, "need a number for axes['x']"),
        ("inner", {}, "need a Inner for inner"),
        ("inner", Inner(float("nan")), "need a finite number for inner.rate"),
    ],
)
def test_what_does_not_fit_is_one_line(field, value, line):
    with pytest.raises(jg.InputError) as refused:
        values.check(Config(**{field: value}))
    assert line in str(refused.value) and "\n" not in str(refused.value)
