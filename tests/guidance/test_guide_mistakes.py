"""What `guide` is given: times, states, conditions and functions that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.errors import InputError

FAST_COMPILE = True
X, LABEL = jnp.ones((2, 3)), jnp.ones(2)
NAN = float("nan")


def plain(x, t, label):
    return x * label[:, None]


def call(t=0.5, *, x=X, label=LABEL, guidance=None, state=None, **options):
    given = {"time", "batched", "predict"} & set(options)
    settings = {name: options.pop(name) for name in given}
    guided = jg.guide(
        settings.pop("predict", plain), guidance or jg.cfg(2.0, t_lo=0.2), **settings
    )
    state = guided.init(x) if state is None else state
    return guided(x, t, label, state, **{"conds": {"null": 0 * LABEL}, **options})[0]


def refused(match, *args, **options):
    with pytest.raises(InputError, match=match) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


TIMES = {
    "timestep": (999, r"\[0, 1\] for t, got t=999\. Divide by 1000"),
    "a half timestep": (499.5, r"got t=499\.5\. Divide by 1000"),
    "of 4096": (4000.0, r"got t=4000\. Divide by 10000"),
    "negative": (-0.01, r"got t=-0\.01\. 1 is noise and 0 is data"),
    "nan": (NAN, "got t=nan"),
    "numpy nan": (np.float32(NAN), "got t=nan"),
    "infinite": (jnp.float32(jnp.inf), "got t=inf"),
    "one of a batch": (np.array([0.5, 1.5]), r"got t=1\.5"),
    "integers": (jnp.array([3, 999]), "floating-point time.*got int32"),
    "another batch": (np.array([0.1, 0.2, 0.3]), r"t of shape \[\] or \[B\]"),
    "none": (None, "a time in .*got None"),
    "words": ("0.5", "a time in .*got '0.5'"),
    "bool": (True, "a time in .*got True"),
}


@pytest.mark.parametrize("case", TIMES.values(), ids=TIMES)
def test_a_time_that_is_none_is_refused(case):
    t, match = case
    refused(f"guide: need .*{match}", t)
    if not isinstance(t, str | bool | None):
        refused("guide: need", t, time="data")
    if t is not None:
        refused("guide: need .*next_t", 0.5, next_t=t)


def test_integer_timesteps_are_refused_under_jit_too():
    with pytest.raises(InputError, match=r"Divide timesteps by their number"):
        jax.jit(call)(500)
    assert jax.jit(call)(0.5).shape == X.shape  # a traced time passes


@pytest.mark.parametrize("t", [0, 1, 0.0, 1.0, np.float32(1.0000001), -1e-9])
def test_both_ends_are_times(t):
    np.testing.assert_allclose(call(t), 2 * X if t > 0.5 else X, rtol=1e-6)


def test_times_of_a_batch_may_differ():
    found = call(np.array([0.1, 0.9]))
    np.testing.assert_array_equal(found, np.array([[1.0], [2.0]]) * np.ones(3))


STATES = {
    "none": (lambda g: (), r"got state=\(\)"),
    "x": (lambda g: X, r"got state=Array"),
    "guide": (lambda g: jg.guide(plain, g), "got state=Guide"),
    "of another guidance": (
        lambda g: jg.guide(plain, jg.cfg(2.0)).init(X),
        r"of this guidance.*got leaves of shapes \(\) for \(\(2, 3\), \(\)\)",
    ),
    "of another batch": (
        lambda g: jg.guide(plain, g).init(X[:1]),
        r"states shaped like x \(2, 3\), got leaves of shapes \(\(1, 3\), \(\)\)",
    ),
}


@pytest.mark.parametrize("case", STATES.values(), ids=STATES)
def test_a_state_of_something_else_is_refused(case):
    make, match = case
    guidance = jg.sg_prev(1.0)
    refused(
        f"guide: need the state .*{match}.*init",
        guidance=guidance,
        state=make(guidance),
    )


ARGUMENTS = {
    "integers": (
        dict(x=jnp.ones((2, 3), int)),
        "numbers, got x.dtype=int32",
    ),
    "bools": (dict(x=jnp.ones((2, 3), bool)), "floating-point numbers, got x.dtype=b"),
    "complex": (dict(x=jnp.ones((2, 3), complex)), "numbers, got x.dtype=complex64"),
    "a list": (dict(x=[[1.0, 2.0]]), r"numbers, got x=\[\[1.0, 2.0\]\]"),
    "a number": (dict(x=jnp.float32(1)), r"got x.shape=\(\)"),
    "a label": (dict(label=1.0), r"one row per sample in the condition 'cond'"),
    "labels": (dict(label=jnp.ones(3)), r"leaves \[B, \.\.\.\], got shape \(3,\)"),
    "null": (dict(conds={"null": jnp.zeros(1)}), "in the condition 'null'.*got shape"),
    "conds": (dict(conds=[LABEL]), r"need a dict by name for conds.*conds=\{'null'"),
    "a seed": (dict(key=0), r"need a PRNG key for key, got key=0\. Pass key=jax\.ran"),
}


@pytest.mark.parametrize("case", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused(case):
    options, match = case
    refused(match, **options)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_narrow_floats_are_kept(dtype):
    label = LABEL.astype(dtype)
    out = call(x=X.astype(dtype), label=label, conds={"null": 0 * label})
    assert out.dtype == dtype


FUNCTIONS = {
    "None": lambda x: None,
    "list": lambda x: [x],
    "number": lambda x: 1.0,
    "dict": lambda x: {"sample": x},
    "empty": lambda x: (),
    "four": lambda x: (x, x, x, x),
    "integers": lambda x: x.astype(int),
    "complex": lambda x: x.astype(complex),
    "shape": lambda x: x[:, :2],
}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("out", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_a_function_returns_is_judged(out, batched):
    refused(
        "guidance: need (a network that returns|predictions shaped like x).*got ",
        predict=lambda x, t, c: out(x), batched=batched,
    )  # fmt: skip


MADE = {
    "path": (
        dict(path="linear"),
        r"a noise path such as paths.Linear\(\).*'linear'",
    ),
    "uncalled path": (
        dict(path=paths.Linear),
        "need a noise path such as paths.Li",
    ),
    "network": (
        dict(predict=jg.Network(plain)),
        "got a Network. Pass predict=netw",
    ),
    "None": (
        dict(predict=None),
        r"function \(x, t, cond\) for predict, got None",
    ),
    "uncalled": (dict(guidance=jg.cfg), r"such as cfg\(1.5\), got <fu.*Call it: cfg\("),
    "list": (dict(guidance=[jg.cfg(2.0)]), r"such as cfg.*one by one: chain\(\*trans"),
    "sampler": (
        dict(guidance=jg.euler()),
        r"such as cfg\(1.5\), got Single",
    ),
    "networks": (dict(networks=plain), "need a dict by name for networks, got <func"),
    "weak": (dict(networks={"weak": None}), r"for networks\['weak'\], got None"),
    "depth": (dict(depth="4"), "need an integer depth >= 0, got depth='4'"),
}


@pytest.mark.parametrize("case", MADE.values(), ids=MADE)
def test_the_wrong_kind_is_named_with_what_to_write(case):
    options, match = case
    arguments = {"predict": plain, "guidance": jg.cfg(2.0)} | options
    with pytest.raises(InputError, match=match) as caught:
        jg.guide(arguments.pop("predict"), arguments.pop("guidance"), **arguments)
    assert "\n" not in str(caught.value)


# Maps of the running result, before there is one.


@pytest.mark.parametrize(
    "early",
    [jg.rescale(0.7), jg.renorm(), jg.renorm(rule="equal"), jg.guided_channels(1)],
)
def test_a_map_of_nothing_is_refused(early):
    with pytest.raises(
        InputError, match=rf"need {early.name} after what it maps.*cfg\("
    ):
        jg.chain(early, jg.cfg(2.0))
    with pytest.raises(
        InputError, match=f"guide: need guidance for {early.name} to map"
    ):
        jg.guide(plain, early)
    late = jg.chain(jg.cfg(2.0), jg.chain(early, jg.rescale(0.1)), jg.sg_prev(1.0))
    assert len(late.parts) == 4


def test_a_map_that_acts_on_a_plain_prediction_may_stand_first():
    shorter = jg.chain(jg.renorm(limit=0.5), jg.cfg(2.0))
    np.testing.assert_allclose(call(guidance=shorter), 1.5 * X, rtol=1e-6)
    jg.chain(jg.dynamic_threshold(), jg.rescale(0.5), jg.cfg(2.0))
    jg.chain(jg.renorm(limit=lambda t: t), jg.cfg(2.0))
