"""`generate`, `sweep`, `invert`, `cost`: the wrong kind of thing, in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import samplers
from jaxguide.errors import InputError

FAST_COMPILE = True
X, LABEL = jnp.ones((2, 3)), jnp.ones(2)


def plain(x, t, label):
    return x * label[:, None]


USUAL = dict(
    network=jg.Network(plain), x=X, cond=LABEL, grid=jg.uniform(4),
    sampler=jg.euler(), guidance=jg.cfg(2.0), conds={"null": 0 * LABEL},
)  # fmt: skip


def generate(**options):
    given = USUAL | options
    network, x, cond = (given.pop(name) for name in ("network", "x", "cond"))
    return jg.generate(network, x, cond, **given)


def sweep(**options):
    given = USUAL | options
    network, x, cond = (given.pop(name) for name in ("network", "x", "cond"))
    guidances = given.pop("guidances", [given.pop("guidance")])
    given.pop("guidance", None)
    return samplers.sweep(network, x, cond, guidances=guidances, **given)


def invert(**options):
    given = USUAL | options
    network, x, cond = (given.pop(name) for name in ("network", "x", "cond"))
    return jg.invert(network, x, cond, **given)


def cost(**options):
    given = USUAL | options
    names = ("network", "guidance", "grid", "sampler")
    networks = given.get("networks")
    return jg.cost(*(given[name] for name in names), networks=networks)


ALL = {"generate": generate, "sweep": sweep, "invert": invert, "cost": cost}
EVERYWHERE = {
    "function": (
        dict(network=plain),
        r"need a Network for network.*jg\.Network\(",
    ),
    "no function": (
        dict(network=jg.Network(None)),
        "need a function as predict of",
    ),
    "uncalled sampler": (
        dict(sampler=jg.euler),
        r"sampler=<func.*Call it: euler\(\)",
    ),
    "own function": (
        dict(sampler=plain),
        r"a sampler.*Pass sampler=jg\.euler\(\)",
    ),
    "sampler's name": (dict(sampler="euler"), "need a sampler, got sampler='euler'"),
    "transform": (dict(sampler=jg.cfg(2.0)), "need a sampler, got sampler=Contrast"),
    "uncalled": (dict(guidance=jg.cfg), r"chain: need .*Call it: cfg\("),
    "list": (dict(guidance=[jg.cfg(2.0)]), r"chain: need .*chain\(\*transforms\)"),
    "name": (dict(guidance="cfg"), "chain: need transforms such as .*got 'cfg'"),
    "alone": (dict(guidance=jg.rescale()), r"need guidance for rescale.*chain\(cfg\("),
    "networks": (dict(networks=jg.Network(plain)), "need a dict by name for networks"),
    "weak": (dict(networks={"weak": plain}), r"need a Network for networks\['weak'\]"),
    "steps": (dict(grid=20), "need a strictly decreasing grid"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", EVERYWHERE.values(), ids=EVERYWHERE)
def test_the_wrong_kind_is_named(case, name):
    options, match = case
    with pytest.raises(InputError, match=match) as caught:
        ALL[name](**options)
    assert "\n" not in str(caught.value)


SAMPLING = {
    "integers": (dict(x=X.astype(int)), "numbers, got x.dtype=int32"),
    "bools": (dict(x=X > 0), "numbers, got x.dtype=bool"),
    "complex": (dict(x=X.astype(complex)), "numbers, got x.dtype=complex64"),
    "None": (dict(x=None), "numbers, got x=None"),
    "conds": (dict(conds=LABEL), "need a dict by name for conds"),
    "seed": (dict(key=3), r"need a PRNG key for key, got key=3"),
    "labels": (dict(cond=jnp.ones(3)), "one row per sample in the condition 'cond'"),
    "one label": (dict(cond=1.0), r"got shape \(\) for x.shape=\(2, 3\)"),
}


@pytest.mark.parametrize("name", ["generate", "sweep", "invert"])
@pytest.mark.parametrize("case", SAMPLING.values(), ids=SAMPLING)
def test_states_and_keys_of_the_wrong_kind_are_named(case, name):
    options, match = case
    with pytest.raises(InputError, match=match):
        ALL[name](**options)


def test_keys_and_callbacks_of_sampling():
    ddpm = dict(sampler=jg.ddpm(), guidance=None)
    for keys in (jax.random.key(0), jg.sample_keys(0, jnp.arange(3)), 7):
        with pytest.raises(InputError, match=r"sample_keys.*jg\.sample_keys\(seed"):
            generate(sample_keys=keys, **ddpm)
    with pytest.raises(InputError, match="need a function for progress, got progr"):
        generate(progress=True)
    with pytest.raises(InputError, match="icg: need a PRNG key"):
        generate(guidance=jg.icg(2.0, num_classes=3), cond=jnp.ones(2, int))
    with pytest.raises(InputError, match=r"need a list of guidances.*\[cfg\(1\.5\)"):
        sweep(guidances=jg.cfg(2.0))


@pytest.mark.parametrize("out", [lambda x: None, lambda x: [x], lambda x: x > 0])
def test_what_a_network_returns_is_judged(out):
    network = jg.Network(lambda x, t, label: out(x))
    with pytest.raises(InputError, match="need a network that returns a floating"):
        generate(network=network)


def test_a_sweep_may_hold_functions_that_have_no_value_at_the_end():
    grid = np.array([0.9, 0.5, 0.1])
    scales = [jg.cfg(jg.Schedule(w, pole)) for w in (1.0, 2.0)]
    found = sweep(guidances=scales, grid=grid)
    want = [generate(guidance=one, grid=grid) for one in scales]
    np.testing.assert_allclose(found, np.stack(want), rtol=1e-6)


def pole(t):
    return 1 / (1 - float(t))
