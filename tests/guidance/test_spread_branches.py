"""Branches on different devices: every transform gives what it gives on one."""

import jax
import numpy as np
import pytest

import jaxguide as jg
from jaxguide.guidance import Branch, DropBlocks
from jaxguide.guidance._base import OwnedBranch
from jaxguide.guidance._devices import devices_of_branches, shares
from jaxguide.runtime import devices
from tests import transforms as tf

FAST_COMPILE = True
GRID = np.array([0.8, 0.6, 0.4])
NOISE = tf.start(4)
ROWS = {row.name: row for row in tf.ALL_TRANSFORMS}


def on_devices(guidance, batch):
    """Samples of a counted network on eight devices, which `batch` images share."""
    main, weak = tf.toy_probe(), tf.toy_probe(0.9)
    with jax.set_mesh(devices.branch_mesh(batch, 8)):
        found = tf.sample(guidance, main, weak, GRID, noise=tf.start(batch))
    return found, main.evaluations(batch) + weak.evaluations(batch)


def networks():
    """The same, not counted."""
    return tf.toy_probe().known(), tf.toy_probe(0.9).known()


def on_one(guidance, batch):
    """The same on one, and what it costs."""
    main, weak = networks()
    found = tf.sample(guidance, main, weak, GRID, noise=tf.start(batch))
    return found, jg.cost(main, guidance, GRID, jg.euler(), networks={"weak": weak}).nfe


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name", [row.name for row in tf.ALL_TRANSFORMS if row.like is None]
)
def test_a_transform_gives_on_eight_devices_what_it_gives_on_one(name):
    row = ROWS[name]
    guidance = jg.chain(jg.cfg(2.0), row.make(row.value))
    apart, calls = on_devices(guidance, 1)
    together, nfe = on_one(guidance, 1)
    np.testing.assert_allclose(apart, together, atol=1e-6, rtol=1e-6)
    assert calls == nfe  # each branch on one device, and dead ones on none


@pytest.mark.exhaustive
def test_images_and_branches_are_cut_over_the_devices_together():
    guidance = ROWS["chain"].make(0.4)
    mesh = devices.branch_mesh(4, 2)
    assert dict(mesh.shape) == {"branch": 2, "batch": 4}
    with jax.set_mesh(mesh):
        apart = tf.sample(guidance, *networks(), GRID, noise=devices.split(NOISE, mesh))
    together = tf.sample(guidance, *networks(), GRID, noise=NOISE)
    np.testing.assert_allclose(apart, together, atol=1e-6, rtol=1e-6)


def test_costly_branches_are_spread_first():
    """Of 6 blocks at 100 FLOPs each of 1000, one that drops 5 costs half."""
    half = Branch(change=DropBlocks(5 / 6, ()))
    whole = Branch(), Branch(cond="null"), Branch(cond="other")
    ones = [OwnedBranch(one) for one in (half, *whole)]
    named = {"main": networks()[0]}
    found = shares(named, ones, 2)
    assert [len(part) for part in found] == [2, 2]
    assert shares(named, ones, 8) == [[one] for one in (*ones[1:], ones[0])]


def test_programs_without_the_axis_know_no_devices_of_branches():
    assert devices_of_branches() == 1
    with jax.set_mesh(devices.local_mesh()):
        assert devices_of_branches() == 1
