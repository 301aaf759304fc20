"""What the laws of the contract share: how rows are run and counted."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

import jaxguide as jg
from tests import transforms as tf

GRID = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
SHORT = np.array([1.0, 0.6, 0.05, 0.0])
SAMPLERS = {
    "euler": jg.euler(),
    "ddim": jg.ddim(),
    "ddpm": jg.ddpm(),
    "euler_maruyama": jg.euler_maruyama(),
    "dpmpp_2m": jg.dpmpp_2m(),
    "heun": jg.heun(),
    "dpmpp_2m_sde": jg.dpmpp_2m_sde(),
    "dpmpp_sde": jg.dpmpp_sde(),
    "res_2m": jg.res_2m(),
    "res_2s": jg.res_2s(),
    "sde_heun": jg.sde_heun(),
    "unipc": jg.unipc(),
}
TWO_STAGES = ("dpmpp_sde", "heun", "res_2s", "sde_heun")
EXHAUSTIVE = [pytest.mark.exhaustive]


def marked(rows):
    """The rows as parameters; one that is like another is for the exhaustive run."""
    return [
        pytest.param(row, id=row.name, marks=EXHAUSTIVE if row.like else [])
        for row in rows
    ]


every_row = pytest.mark.parametrize("row", tf.ALL_TRANSFORMS, ids=lambda row: row.name)
# For laws that take long: in the default run one row of every sort.
typical_rows = pytest.mark.parametrize("row", marked(tf.ALL_TRANSFORMS))
neutral_rows = pytest.mark.parametrize("row", marked(tf.WITH_NEUTRAL))


PROMISES = ("invariant", "stochastic", "memory", "own", "coupled", "gradients")


def kind(row):
    """The file that its last part comes from, and what it promises."""
    last = jg.chain(row.make(row.value)).parts[-1]
    return type(last).__module__, *(getattr(row, name) for name in PROMISES)


def one_of_every_kind(rows):
    """The rows as parameters; but for the first of a kind in the exhaustive run."""
    params, seen = [], set()
    for row in rows:
        left = row.like is not None or kind(row) in seen
        seen |= set() if left else {kind(row)}
        marks = EXHAUSTIVE if left else []
        params.append(pytest.param(row, id=row.name, marks=marks))
    return params


# For laws that compile each row in a program of its own: the first row of every kind.
some_rows = pytest.mark.parametrize("row", one_of_every_kind(tf.ALL_TRANSFORMS))
some_neutral_rows = pytest.mark.parametrize("row", one_of_every_kind(tf.WITH_NEUTRAL))


def one_of_three(params):
    """Of what the default run has, every third; the rest for the exhaustive run."""
    default = [param for param in params if not param.marks]
    kept = default[::3]
    return [
        param
        if param in kept
        else pytest.param(*param.values, id=param.id, marks=EXHAUSTIVE)
        for param in params
    ]


# For laws that compile several programs for each row.
few_neutral_rows = pytest.mark.parametrize(
    "row", one_of_three(one_of_every_kind(tf.WITH_NEUTRAL))
)
few_rows = pytest.mark.parametrize(
    "row", one_of_three(one_of_every_kind(tf.ALL_TRANSFORMS))
)


def rest(*values):
    """Parameters for the exhaustive run alone."""
    return [pytest.param(value, marks=EXHAUSTIVE) for value in values]


def kinds_and_paths(kinds, paths):
    """Every kind on the first path and every path of the first kind; the rest apart."""
    return [
        pytest.param(path, kind, marks=marks, id=f"{path}-{kind}")
        for path in paths
        for kind in kinds
        for marks in [[] if path is paths[0] or kind == kinds[0] else EXHAUSTIVE]
    ]


def rows_and_samplers():
    """Every row with one stage, some with two, as (row, name); the rest is for the
    exhaustive run: stages are all that a cost knows of a sampler."""
    some = ("cfg", "sg_prev", "s2", "cfg_cache", "tfg", "chain")
    for name in SAMPLERS:
        for row in tf.ALL_TRANSFORMS:
            first = name == "euler" and row.like is None
            known = first or (name == "heun" and row.name in some)
            marks = [] if known else EXHAUSTIVE
            yield pytest.param(row, name, marks=marks, id=f"{row.name}-{name}")


def probes():
    main, weak = tf.toy_probe(1.3), tf.toy_probe(0.9)
    weak.facts["flops"] = 300.0
    return main, weak


def eager(guidance, **options):
    """Samples without compiling, and the two probes that watched."""
    main, weak = probes()
    grid = options.pop("grid", GRID)
    with jax.disable_jit():
        out = tf.sample(guidance, main, weak, grid, **options)
    return out, main, weak


def promised(row, grid=GRID, sampler="euler"):
    """NFE per image by the row's own account, stages counted by hand."""
    total = 0
    for i, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        stages = 2 if sampler in TWO_STAGES and s > 0 else 1
        total += stages * (1 + row.extra(float(t), i))
    return total


def few_steps(row):
    """One step inside every window; two where the second sees the first."""
    remembers = row.memory or row.name in ("linear_ag", "adaptive_guidance")
    return np.array([0.65, 0.5, 0.3] if remembers else [0.65, 0.4])


class Compiled(NamedTuple):
    first: np.ndarray
    again: np.ndarray
    other: np.ndarray  # with another value
    traces: list[int]  # after each of the three runs
    evaluations: int  # of one run of the compiled program
    cost: int


def compiled_grid(row):
    """All steps for the row with every window; for others as few as show a program."""
    return GRID if row.name == "chain" else few_steps(row)


@functools.cache
def compiled(name, grid=None):
    """One row through `generate` three times, as a user would call it.

    The only place where a row is compiled with a counter in it.
    """
    row = tf.BY_NAME[name]
    grid = compiled_grid(row) if grid is None else np.array(grid)
    main, weak = probes()
    outs, traces = [], []
    for value in (row.value, row.value, 0.8 * row.value + 0.01):
        outs.append(np.asarray(tf.sample(row.make(value), main, weak, grid)))
        traces.append(main.traces + weak.traces)
    cost = jg.cost(
        main.network(), row.make(row.value), grid, jg.euler(),
        networks={"weak": weak.network()},
    )  # fmt: skip
    counted = main.evaluations() + weak.evaluations()
    return Compiled(*outs, traces, counted / 3, cost.nfe)


def masks(probe):
    """Every `keep_blocks` that the network was given, in order of evaluation."""
    return [seen.keep.tolist() for seen in probe.calls if seen.keep is not None]


class Probing(jg.Transform):
    """What the transforms of these files share."""


def register(cls):
    return jax.tree_util.register_static(cls)
