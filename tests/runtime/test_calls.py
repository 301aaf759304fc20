"""Mistakes in one entry of a config's guidance: one line that names the fix."""

import inspect
import math
import typing

import jax.numpy as jnp
import pytest

from jaxguide.guidance import schedules
from jaxguide.runtime.calls import call
from jaxguide.sample import build
from jaxguide.sample.build import TRANSFORMS, build_transform

WRONG = {
    "text for a scale": (dict(name="cfg", scale="x"), "a number for scale, got scale="),
    "nothing for a scale": (
        dict(name="cfg", scale=None),
        "scale=None. Write scale=1.5",
    ),
    "a list for a scale": (dict(name="cfg", scale=[1, 2]), "a number for scale"),
    "truth for a scale": (dict(name="cfg", scale=True), "a number for scale"),
    "text for an edge": (dict(name="cfg", scale=2, t_lo="a"), "a number for t_lo"),
    "no weight": (dict(name="sg_prev", t_lo=2), "sg_prev: need weight, got ['t_lo']"),
    "an edge outside": (
        dict(name="sg_prev", weight=1, t_lo=2),
        "build_guidance sg_prev: window: need 0 <= t_lo < t_hi <= 1, got t_lo=2",
    ),
    "a number for a truth": (dict(name="sg", weight=1, dynamic=1), "True or False"),
    "half a mask": (dict(name="s2", weight=1, num_masks=1.5), "an integer for num_ma"),
    "no tuple": (dict(name="s2", weight=1, exclude=3), "a tuple for exclude"),
    "text in a tuple": (dict(name="s2", weight=1, exclude=("a",)), "an integer for ex"),
    "a number for text": (
        dict(name="compose", condition=3, weight=1),
        "a string for condition, got condition=3. Write condition='text'",
    ),
    "unknown argument": (dict(name="cfg", scal=2.0), "Did you mean 'scale'?"),
    "unknown name": (dict(name="cgf"), "Did you mean 'cfg'?"),
    "no name": (dict(scale=2.0), "need a name in every entry"),
    "no function": (dict(name="energy", weight=1.0, function=3), "'package.module:"),
    "no module": (
        dict(name="energy", weight=1.0, function="no.such:thing"),
        "need 'package.module:function', got 'no.such:thing'",
    ),
    "a function that acts": (
        dict(name="energy", weight=1.0, function="os:system"),
        "need a function that computes, got 'os:system'",
    ),
    "no function of a module": (
        dict(name="energy", weight=1.0, function="math:thing"),
        "need a function of math, got 'math:thing'",
    ),
    "no text for a name": (dict(name=3), "need a name in every entry"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_entry_is_one_line(case):
    entry, expected = WRONG[case]
    with pytest.raises(ValueError) as error:
        build_transform(entry)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert "build_guidance" in str(error.value)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("value", [None, {}, "\0", [None], -1e9])
def test_no_plain_value_of_any_argument_ends_in_a_traceback(name, value):
    factory = TRANSFORMS[name]
    hints = typing.get_type_hints(factory)
    parameters = inspect.signature(factory).parameters
    needed = {
        other: "text" if hints.get(other) is str else 0.5
        for other, parameter in parameters.items()
        if parameter.default is parameter.empty
    }
    for wrong in parameters:
        try:
            build_transform(dict(name=name) | needed | {wrong: value})
        except ValueError as error:
            assert name in str(error) and "\n" not in str(error)


def test_right_values_pass():
    def made(
        a: float, b: float | schedules.Schedule, c: tuple[int, ...] = (), d: int = 0
    ):
        return a, b, c, d

    assert call("x", made, dict(a=1, b=2.0, c=[1, 2], d=3)) == (1, 2.0, (1, 2), 3)
    schedule = schedules.window(2.0, t_lo=0.5, outside=1.0)
    assert call("x", made, dict(a=1.5, b=schedule))[1] is schedule
    array = jnp.ones(2)
    assert call("x", made, dict(a=array, b=array))[0] is array


def test_an_array_and_a_function_pass_as_weights():
    part = build.build_transform(dict(name="cfg", scale=lambda t: 2.0 * t))
    assert part.weights[0].shape(0.5) == 1.0


def test_a_function_can_be_named_by_its_module():
    part = build_transform(dict(name="classifier", weight=1.0, log_prob="math:hypot"))
    assert part.log_prob.func is math.hypot
    part = build_transform(dict(name="cfg", scale="math:sqrt"))
    assert part.weights[0].shape(0.25) == 0.5
