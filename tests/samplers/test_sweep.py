"""A sweep is a loop of `generate`, in one program."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.samplers import make_points, structure, sweep
from tests import transforms
from tests.contract.common import rest
from tests.transforms import ALL_TRANSFORMS, labels, start, toy_probe

FAST_COMPILE = True
GRID = jg.uniform(6)


def point(scale, weight, t_hi, drop_weight):
    return jg.chain(
        jg.cfg(scale, t_lo=0.2, t_hi=0.9),
        jg.sg_prev(weight, t_hi=t_hi),
        jg.s2(drop_weight, drop=0.3, t_lo=0.2, t_hi=t_hi),
        jg.rescale(0.5),
    )


# The third switches everything but `rescale` off; windows differ from point to point.
POINTS = [
    point(*values)
    for values in ((2.0, 1.0, 0.5, 0.3), (4.0, 0.5, 0.8, 0.0), (1.0, 0.0, 0.6, 0.0))
]


def arguments(network, weak, sampler, seed=1):
    """What both `generate` and `sweep` take."""
    noise, conds = start(), labels()
    return (network, noise, conds["cond"]), dict(
        grid=GRID,
        sampler=sampler,
        conds=conds,
        networks={"weak": weak},
        key=jax.random.key(seed),
        sample_keys=jg.sample_keys(0, jnp.arange(len(noise))),
    )


def both(guidances, sampler, **options):
    """(sweep, loop) with a counted network each: samples and evaluations."""
    results = []
    for how in ("sweep", "loop"):
        probe, weak = toy_probe(), toy_probe(0.9)
        given, named = arguments(probe.network(), weak.network(), sampler)
        if how == "sweep":
            found = sweep(*given, guidances=guidances, **named, **options)
        else:
            found = [jg.generate(*given, guidance=g, **named) for g in guidances]
        results.append((np.asarray(jnp.stack(list(found))), probe, weak))
    return results


@pytest.mark.parametrize(
    "sampler",
    [jg.ddim(eta=1.0), *rest(jg.heun(), jg.euler(), jg.dpmpp_2m())],
    ids=repr,
)
def test_a_sweep_is_a_loop_of_generate(sampler):
    (swept, probe, _), (looped, other, _) = both(POINTS, sampler)
    assert swept.shape == (3, *start().shape)
    np.testing.assert_allclose(swept, looped, atol=2e-6)
    assert np.abs(swept[0] - swept[1]).max() > 0.01
    assert probe.evaluations() == other.evaluations()  # and not one more
    promised = [jg.cost(other.network(), g, GRID, sampler).nfe for g in POINTS]
    assert probe.evaluations() == sum(promised)


@pytest.mark.exhaustive
def test_vmapped_is_the_same():
    (swept, *_), (looped, *_) = both(POINTS, jg.euler(), vmapped=True)
    np.testing.assert_allclose(swept, looped, atol=2e-6)


def test_a_point_that_is_all_neutral_is_bitwise_unguided():
    off = jg.chain(jg.cfg(1.0), jg.sg_prev(0.0), jg.s2(0.0))
    on = jg.chain(jg.cfg(3.0), jg.sg_prev(1.0), jg.s2(0.5))
    given, named = arguments(toy_probe().known(), toy_probe().known(), jg.euler())
    swept = sweep(*given, guidances=[on, off], **named)
    plain = sweep(*given, guidances=[None], **named)
    np.testing.assert_array_equal(swept[1], plain[0])


def traces(guidances, probe, **changes):
    given, named = arguments(probe.network(), probe.network(), jg.euler())
    before = probe.traces
    sweep(*given, guidances=guidances, **(named | changes)).block_until_ready()
    return probe.traces - before


def test_one_compilation_however_many_points():
    grid = itertools.product((1.5, 2.0, 3.0, 4.0), (0.5, 1.0), (0.2, 0.4))
    many = [point(scale, weight, 0.5, drop) for scale, weight, drop in grid]
    few, probe = toy_probe(), toy_probe()
    once = traces(many[:1], few)
    assert traces(many, probe) == once > 0
    # Other values of the same structure and live steps do not trace again.
    others = [point(5.0 + i, 0.3, 0.5, 0.7) for i in range(len(many))]
    assert traces(others, probe) == 0
    assert traces(many, probe, key=jax.random.key(5)) == 0


def test_windows_are_swept_in_one_program():
    windows = [jg.chain(jg.cfg(2.0, t_lo=lo)) for lo in (0.2, 0.3, 0.5, 0.7)]
    one, all_of_them = toy_probe(), toy_probe()
    # Two modes (guided or not) whatever the number of windows.
    assert traces(windows[:1], one) == traces(windows, all_of_them)


def test_points_are_sliced_without_a_new_program():
    given, named = arguments(toy_probe().known(), toy_probe().known(), jg.euler())
    points = make_points(
        POINTS, path=given[0].path, grid=GRID, sampler=named["sampler"]
    )
    assert len(points) == 3 and len(points[1:]) == 2
    whole = sweep(*given, guidances=points, **named)
    probe = toy_probe()
    given = (probe.network(), *given[1:])
    counts = []
    for index in range(3):
        part = sweep(*given, guidances=points[index : index + 1], **named)
        np.testing.assert_allclose(part[0], whole[index], atol=2e-6)
        counts.append(probe.traces)
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("row", ALL_TRANSFORMS, ids=lambda row: row.name)
def test_every_transform_can_be_swept_by_its_number(row):
    """On and off have one structure, and `init` works on numbers as on schedules."""
    other = 0.5 * row.value if row.neutral is None else row.neutral
    chains = [jg.chain(row.make(value)) for value in (row.value, other)]
    assert structure(chains[0]) == structure(chains[1])
    points = make_points(chains, path=jg.paths.Linear(), grid=GRID, sampler=jg.euler())
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), chain.init(start()))
        for chain in (chains[0], points.chain.with_constants(points.constants))
    ]
    assert shapes[0] == shapes[1]


STATEFUL = [row for row in ALL_TRANSFORMS if row.memory and row.name != "chain"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("row", STATEFUL, ids=lambda row: row.name)
def test_a_memory_is_that_of_the_point_alone(row):
    values = (row.neutral, row.value, 0.5 * (row.value + row.neutral))
    guidances = [jg.chain(row.make(value)) for value in values]
    (swept, probe, _), (looped, other, _) = both(guidances, jg.euler())
    np.testing.assert_allclose(swept, looped, atol=2e-6)
    assert probe.evaluations() == other.evaluations()


def test_gradients_and_jit_go_through():
    given, named = arguments(toy_probe().known(), toy_probe().known(), jg.euler())

    @jax.jit
    def total(scales):
        guidances = [jg.chain(jg.cfg(scales[i])) for i in range(2)]
        return sweep(*given, guidances=guidances, **named).sum(axis=(1, 2, 3))

    slopes = jax.jacobian(total)(jnp.asarray([2.0, 3.0]))
    assert np.abs(np.diag(slopes)).min() > 0
    np.testing.assert_array_equal(slopes - np.diag(np.diag(slopes)), 0)


def test_progress_is_called_for_every_step_of_every_point():
    seen = []

    def progress(index):
        seen.append(int(index))

    given, named = arguments(toy_probe().known(), toy_probe().known(), jg.euler())
    sweep(*given, guidances=POINTS, **named, progress=progress).block_until_ready()
    jax.effects_barrier()
    assert sorted(seen) == sorted(3 * list(range(6)))


MISTAKES = {
    "none": ([], {}, r"sweep: need at least one guidance"),
    "structure": (
        [jg.chain(jg.cfg(2.0)), jg.chain(jg.negative(2.0))],
        {},
        r"got guidances\[1\] of another structure",
    ),
    "shape": (
        [jg.chain(jg.cfg(2.0)), jg.chain(jg.cfg(jnp.ones(4)))],
        {},
        r"guidances\[1\] of another structure",
    ),
    "grid": (POINTS, dict(grid=[0.0, 1.0]), r"sweep: need a strictly decreasing grid"),
    "keys": (
        POINTS,
        dict(sampler=jg.ddpm(), sample_keys=None),
        r"sweep: need sample_keys \[B\]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name):
    guidances, changes, expected = MISTAKES[name]
    given, named = arguments(toy_probe().known(), toy_probe().known(), jg.euler())
    with pytest.raises(ValueError, match=expected) as error:
        sweep(*given, guidances=guidances, **(named | changes))
    assert "\n" not in str(error.value)


def test_the_probe_sees_another_network():
    """The comparison above can fail: another network gives other samples."""
    first, second = transforms.toy_probe(1.3), transforms.toy_probe(0.4)
    found = []
    for probe in (first, second):
        given, named = arguments(probe.network(), probe.network(), jg.euler())
        found.append(sweep(*given, guidances=POINTS[:1], **named))
    assert np.abs(found[0] - found[1]).max() > 0.01
