"""Numbers known on the host: one check, whatever holds them; traced ones pass."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance as g
from jaxguide.errors import InputError
from tests import transforms as tf

FAST_COMPILE = True
NAN, INF = float("nan"), float("inf")
NOT_FINITE = {
    "float": NAN,
    "float32": np.float32(NAN),
    "jax": jnp.float32(INF),
    "bfloat16": jnp.bfloat16(NAN),
    "array": np.array([1.0, NAN]),
    "jax array": jnp.array([1.0, -INF]),
    "list": [1.0, NAN],
    "too large for float32": 1e39,
}


def last(value):
    return np.ravel(np.asarray(value, np.float64))[-1]


# What the functions take besides their first number.
MAKERS = {
    "cfg": jg.cfg,
    "negative": jg.negative,
    "compose": lambda v: jg.compose("other", v),
    "nested": lambda v: jg.nested((v, 2.0), via=("other",)),
    "rescale": jg.rescale,
    "sg_prev": jg.sg_prev,
    "schedule": lambda v: jg.cfg(jg.Schedule(v)),
    "window": lambda v: jg.window(v, t_lo=0.2, outside=0.0),
    "constant": jg.constant,
    "cosine": lambda v: jg.cfg(jg.schedules.cosine(v)),
    "beta_cfg": jg.beta_cfg,
    "momentum": lambda v: jg.apg(2.0, momentum=v),
    "radius": lambda v: jg.apg(2.0, radius=v),
    "parallel of a level": lambda v: jg.fdg((2.0, 3.0), parallel=(None, v)),
    "numbers": lambda v: jg.contrast(1.0, g.NULL, numbers={"std": v}),
    "tfg": lambda v: jg.tfg(lambda x, y: x.sum((1, 2)), mean=v),
    "energy": lambda v: jg.energy(v, lambda x, y: x.sum((1, 2))),
    "linear_ag": lambda v: jg.linear_ag(v, np.ones((3, 2, 2))),
    "coefficients": lambda v: jg.linear_ag(2.0, np.full((3, 2, 2), last(v))),
}


@pytest.mark.parametrize("value", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_not_finite_is_refused_when_it_is_made(make, value):
    with pytest.raises(InputError, match=r"need a finite .*(nan|inf|1e\+39)"):
        make(value)


# Every argument of every method whose default is a float, and what else they need.
STATIC = {
    (f.__name__, name)
    for f in g.METHODS
    for name, p in inspect.signature(f).parameters.items()
    if isinstance(p.default, float)
}
FIRST = {
    "classifier": lambda f: (1.0, lambda x, t, y: x.sum((1, 2))),
    "classifier_denoised": lambda f: (1.0, lambda x: x.reshape(len(x), -1)),
    "compose": lambda f: ("other", 1.0),
    "energy": lambda f: (1.0, lambda x, y: x.sum((1, 2))),
    "linear_ag": lambda f: (1.0, np.ones((3, 2, 2))),
    "nested": lambda f: ((2.0, 3.0),),
    "sine": lambda f: (1.0, 0.5),
    "tfg": lambda f: (lambda x, y: x.sum((1, 2)),),
}


@pytest.mark.parametrize(("method", "argument"), sorted(STATIC))
def test_every_number_of_every_method_is_looked_at(method, argument):
    make = getattr(jg, method)
    needed = [
        p.name
        for p in inspect.signature(make).parameters.values()
        if p.default is p.empty and p.kind is not p.KEYWORD_ONLY
    ]
    plain = (1.0,) * len(needed)
    args = FIRST[method](make) if method in FIRST else plain
    names = [*inspect.signature(make).parameters]
    args = args[: names.index(argument)] if argument in names[: len(args)] else args
    extra = {"layers": "all"} if "layers" in names else {}
    extra |= {"num_classes": 3} if "num_classes" in names else {}
    for bad in (NAN, np.float32(NAN), "2"):
        with pytest.raises(InputError, match=r": need "):
            make(*args, **extra, **{argument: bad})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: jg.cfg(np.array([1, NAN])), "need a finite scale, got scale[1]=nan."),
        (lambda: jg.cfg(True), "cfg: need a number for scale, got True."),
        (lambda: jg.cfg(1 + 2j), "cfg: need a number for scale, got (1+2j)."),
        (lambda: jg.cfg([[1.0], [1.0, 2.0]]), "got [[1.0], [1.0, 2.0]]."),
        (lambda: jg.cfg(jax.random.key(0)), "need a number for scale, got Array(("),
        (lambda: jg.rescale(np.float32(1.5)), "rescale: need weight <= 1, got w"),
        (lambda: jg.cfgpp(jnp.float32(7.5)), "got scale=7.5. 0.6 is about"),
        (lambda: jg.dynamic_threshold(percentile=99.5), "percentile=99.5. 99.5 % is"),
        (lambda: jg.sg(1.0, shift=np.array([0.1, 0.2])), "need one number for shift"),
        (lambda: jg.cfg(2.0, t_hi=NAN), "window: need a finite t_hi, got t_hi=nan."),
        (lambda: jg.cfg(2.0, t_lo=0.5, t_hi=0.5), "window: need 0 <= t_lo < t_hi <= 1"),
        (lambda: jg.cfg(2.0, t_hi="1"), "window: need a number for t_hi, got '1'."),
        (lambda: jg.fdg(2.0), "fdg: need at least one scale, got scales=2.0. Give a"),
        (lambda: jg.fdg((2.0, 3.0), parallel=(1.0,)), "one for each of 2 levels"),
        (lambda: jg.apg(2.0, axes=(0, 1)), "need axes of x other than 0"),
        (lambda: jg.guided_channels(True), "need an integer number >= 1, got number=T"),
        (lambda: jg.guided_channels(2, axis=0), "need an axis of x other than 0"),
        (lambda: jg.s2(1.0, num_masks=True), "need an integer num_masks >= 1, got T"),
        (lambda: jg.s2(1.0, exclude=0), "need a tuple of block indices, got ex"),
        (lambda: jg.icg(2.0, num_classes="3"), "icg: need num_classes >= 0, and not"),
        (lambda: jg.icg(2.0, draw=3), "icg: need a function (key, cond) -> cond for"),
        (lambda: jg.cfg_cache(2.0, axes=3), "need two different axes >= 1, got axes=("),
        (lambda: jg.frequency_cfg((2.0, 3.0), cutoffs=0.2), "need 1 falling cut-offs"),
        (lambda: jg.frequency_cfg((2.0, 3.0), cutoffs=(INF,)), "need 1 falling cut-of"),
        (lambda: jg.contrast(1.0, "null"), "need a Branch on both sides, got 'null'."),
        (lambda: jg.contrast(1.0, g.NULL, maps=g.momentum(0.5)), "need a tuple of di"),
        (lambda: jg.contrast(1.0, g.NULL, neutral=NAN), "need a finite neutral, got n"),
        (lambda: jg.cfg(2.0, t_hi=700), "t_hi=700. Times are noise times: 1 is noise"),
    ],
)  # fmt: skip
def test_the_line_names_the_argument_and_its_value(make, text):
    with pytest.raises(InputError) as caught:
        make()
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_infinity_stays_where_it_has_a_meaning():
    for sigma in (INF, np.float32(INF), jnp.inf):
        assert jg.seg(1.0, layers="all", sigma=sigma).away[0].change.sigma == INF
        assert jg.blurred_input(1.0, sigma=sigma).away[0].change.sigma == INF


def test_numbers_of_every_sort_are_the_same_number():
    want = jax.tree.leaves(jg.cfg(2.5))[0]
    for value in (np.float16(2.5), np.float64(2.5), jnp.bfloat16(2.5), jnp.array(2.5)):
        assert float(jax.tree.leaves(jg.cfg(value))[0]) == want
    listed = jax.tree.leaves(jg.cfg([1.5, 2.5]))
    np.testing.assert_array_equal(listed[0], [1.5, 2.5])


def test_traced_numbers_and_other_leaves_are_not_looked_at():
    def value(scale):
        return jg.cfg(scale).weights[0].number

    assert np.isnan(jax.jit(value)(jnp.float32(NAN)))
    assert jax.vmap(value)(jnp.array([1.0, NAN]))[0] == 1
    jax.tree.map(lambda leaf: object(), jg.chain(jg.cfg(2.0), jg.apg(3.0)))


@pytest.mark.parametrize("which", ["t_lo", "t_hi"])
def test_a_traced_window_is_refused_in_one_line(which):
    with pytest.raises(InputError, match=f"window: need {which} known before tracing"):
        jax.jit(lambda edge: jg.cfg(2.0, **{which: edge}).live(0.5))(0.3)
    with pytest.raises(InputError, match="sg: need shift known before tracing"):
        jax.jit(lambda shift: jg.sg(2.0, shift=shift).live(0.5))(0.3)


BAD_FUNCTIONS = {
    "nan": (lambda t: NAN if t < 0.7 else 2.0, r"t=0\.5\d*: need a finite value, got"),
    "infinite": (lambda t: np.divide(1.0, 1 - t), r"t=1\.0: need a finite value"),
    "1 / 0": (lambda t: 1 / (1 - float(t)), r"t=1\.0: need a finite value.*by 0"),
    "jnp": (lambda t: jnp.log(0.7 - t), r"t=1\.0: need a finite value, got value=nan"),
    "None": (lambda t: None, r"t=1\.0: need a number for value, got None"),
    "words": (lambda t: "a", r"t=1\.0: need a number for value, got 'a'"),
    "many": (lambda t: np.ones(3), r"t=1\.0: need one number, got shape \(3,\)"),
    "uncalled": (jg.cfg, r"t=1\.0: need a number for value, got Contrast"),
}
NETWORK = jg.Network(lambda x, t, c: x * c[:, None, None].astype(x.dtype))


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("make", [jg.cfg, lambda f: jg.apg(2.0, radius=f)])
@pytest.mark.parametrize("case", BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS)
def test_a_function_is_refused_at_the_time_where_it_fails(make, case):
    function, match = case
    grid = np.array([1.0, 0.75, 0.5, 0.25, 0.0])

    def run():
        conds = tf.labels()
        return jg.generate(
            NETWORK, tf.start(), conds["cond"], grid=grid, sampler=jg.euler(),
            guidance=make(function), conds=conds,
        )  # fmt: skip

    for each in (run, jax.jit(run)):
        with pytest.raises(InputError, match=f"the function of noise time, at {match}"):
            each()


def test_a_function_is_refused_by_guide_and_before_sampling_by_cost():
    bad = jg.cfg(lambda t: NAN if t > 0.5 else 1.5)
    with pytest.raises(InputError, match=r"at t=1\.0: need a finite value"):
        jg.cost(NETWORK, bad, jg.uniform(4), jg.euler())
    guided, x = jg.guide(lambda x, t, c: x, bad), jnp.ones((2, 3))
    with pytest.raises(InputError, match=r"at t=0\.75: need a finite value"):
        guided(x, 0.75, None, guided.init(x), conds={"null": None})
    guided(x, 0.25, None, guided.init(x), conds={"null": None})
    none = jg.guide(lambda x, t, c: x, jg.cfg(lambda t: None))
    with pytest.raises(InputError, match="at a traced t: need a number for value, got"):
        jax.jit(lambda t: none(x, t, None, none.init(x), conds={"null": None}))(0.5)


def test_outside_its_window_a_function_need_not_have_a_value():
    """1 / (1 - t) in [0, 0.8) is what it is where it is finite, gradient included."""
    grid = np.array([1.0, 0.5, 0.0])

    def total(value, shape):
        scale = jg.window(jg.Schedule(value, shape), t_hi=0.8, outside=1.0)
        out = tf.sample(jg.cfg(scale), NETWORK, NETWORK, grid)
        return out.sum()

    pole = jax.value_and_grad(total)(2.0, lambda t: np.divide(1.0, 1 - t))
    flat = jax.value_and_grad(total)(2.0, lambda t: 2.0)
    np.testing.assert_allclose(pole, flat, rtol=1e-6)
    weight = jg.sg_prev(lambda t: t < 0.5, t_hi=1.0)  # a bool is a number here
    assert [weight.live(t) for t in (0.6, 0.4)] == [False, True]


def later(t, next_t):
    return t + 0.1


def nowhere(t, next_t):
    return t * NAN


def test_a_branch_at_no_time_is_refused_where_it_is_evaluated():
    shifted = jg.contrast(1.0, jg.Branch(time=later), t_hi=0.9, name="mine")
    assert [shifted.live(t) for t in (1.0, 0.85)] == [False, True]
    with pytest.raises(InputError, match=r"mine: need .* got 1\.05 at t=0\.95"):
        jg.contrast(1.0, jg.Branch(time=later), name="mine").live(0.95)
    with pytest.raises(InputError, match=r"need .* in \[0, 1\], got nan at t=0\.5"):
        jg.contrast(1.0, jg.Branch(time=nowhere)).live(0.5)


# A closed edge: REPA guides the step that begins at `high` too.


@pytest.mark.parametrize("steps", [20, 50])
def test_a_window_a_little_wider_takes_the_step_on_its_edge(steps):
    times = [float(t) for t in jg.uniform(steps)[:-1]]
    closed = [t <= 0.7 + 1e-12 for t in times]
    assert [jg.cfg(2.0, t_hi=0.70001).live(t) for t in times] == closed
    open_edge = [jg.cfg(2.0, t_hi=0.7).live(t) for t in times]
    assert sum(closed) - sum(open_edge) == 1  # each has a step that begins at 0.7
    part = jg.cfg(2.0, t_hi=0.70001)
    traced = [float(part.weights[0].at(jnp.float32(t))) == 2 for t in times]
    assert traced == closed


# The law: every sample has its own number, or all have one.


@pytest.mark.parametrize("number", [np.ones(3), np.ones(1), np.ones((4, 1))])
@pytest.mark.parametrize("make", [jg.cfg, lambda v: jg.apg(2.0, radius=v)])
def test_a_number_of_another_batch_is_refused(make, number):
    with pytest.raises(InputError, match=r"need one number, or one per sample \[B\]"):
        tf.sample(make(2 * number), NETWORK, NETWORK, np.array([0.9, 0.5]))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_of_one_is_not_spread_over_the_scales(batch):
    guided, x = (
        jg.guide(lambda x, t, c: x, jg.cfg(jnp.ones(3) + 1)),
        jnp.ones((batch, 2)),
    )
    arguments = (x, 0.5, None, guided.init(x))
    if batch == 3:
        assert guided(*arguments, conds={"null": None})[0].shape == x.shape
        return
    with pytest.raises(InputError, match=r"cfg: need one number.*got shape \(3,\)"):
        guided(*arguments, conds={"null": None})
