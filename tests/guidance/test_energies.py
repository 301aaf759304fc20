"""Classifiers and energies: Bayes' rule, exact reductions, gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.guidance import tfg_schedule
from tests import transforms as tf
from tests.contract.common import rest

FAST_COMPILE = True
MODEL = tf.mixture()
LABEL, NULL = tf.labels()["cond"], tf.labels()["null"]
GRID = np.array([0.9, 0.6, 0.3, 0.05])


def sample(guidance, path=None, kind="velocity", label=LABEL, grid=GRID, **options):
    path = paths.Linear() if path is None else path
    conds = {"null": NULL, "label": LABEL} | options.pop("conds", {})
    settings = dict(sampler=jg.ddim(), key=jax.random.key(0)) | options
    network = tf.oracle(MODEL, kind, path)
    with jax.disable_jit():
        return jg.generate(
            network, tf.start(), label, grid=grid, guidance=guidance, conds=conds,
            **settings,
        )  # fmt: skip


def bayes(path):
    """log p_t(y | x) up to a constant, from the mixture's own densities."""

    def log_prob(x, t, label):
        node = path.node(t)
        null = jnp.full_like(label, MODEL.num_classes)
        own = MODEL.log_density(x, label, node)
        return own - MODEL.log_density(x, null, node)

    return log_prob


@pytest.mark.parametrize(
    "path", [paths.Linear(), *rest(paths.GVP(), paths.VP())], ids=str
)
@pytest.mark.parametrize("kind", ["noise", *rest("velocity", "denoised", "score")])
def test_the_bayes_classifier_on_an_unconditional_network_is_cfg(path, kind):
    guidance = jg.classifier(1.8, bayes(path), condition="label")
    classified = sample(guidance, path, kind, label=NULL)
    plain = sample(jg.cfg(1.8), path, kind)
    np.testing.assert_allclose(classified, plain, rtol=2e-4, atol=2e-4)


def test_the_bayes_classifier_on_a_conditional_network_adds_one_to_the_scale():
    path = paths.Linear()
    classified = sample(jg.classifier(0.8, bayes(path)), path)
    np.testing.assert_allclose(classified, sample(jg.cfg(1.8)), rtol=2e-4, atol=2e-4)


def distance(x0, label):
    """Half the squared distance from a centre."""
    centre = 0.4 * label.astype(x0.dtype)[:, None, None] - 0.3
    return ((x0 - centre) ** 2).reshape(len(x0), -1).sum(axis=1) / 2


def fall(x0, label):
    return -distance(x0, label)


def test_two_zeros_are_unguided_bitwise_and_free():
    guidance = jg.tfg(fall, mean=0, variance=0.0)
    np.testing.assert_array_equal(sample(guidance), sample(None))
    network = MODEL.network()
    assert jg.cost(network, guidance, GRID, jg.ddim()).nfe == 3
    assert jg.cost(network, jg.tfg(fall, variance=0), GRID, jg.ddim()).nfe == 3
    assert jg.cost(network, jg.tfg(fall, mean=0), GRID, jg.ddim()).nfe == 6


def one_step(path, t, s):
    """x, denoised and noise at t, and what DDIM makes of a pair at s."""
    x = tf.start() * jnp.float32(path.node(t).sigma)
    node = jax.tree.map(jnp.float32, path.node(t))

    def denoised(x):
        return MODEL.predict("denoised", path, x, jnp.full(4, jnp.float32(t)), LABEL)

    clean = denoised(x)
    noise = (x - node.alpha * clean) / node.sigma
    end = path.node(s)
    make = lambda c, e: float(end.alpha) * c + float(end.sigma) * e  # noqa: E731
    return x, denoised, clean, noise, make


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", [paths.Linear(), *rest(paths.GVP())], ids=str)
def test_variance_alone_is_dps(path):
    """The next state minus step size times the gradient at the state before."""
    t, s, weight = 0.7, 0.4, 0.3
    x, denoised, clean, noise, make = one_step(path, t, s)
    push = np.zeros_like(x)
    h = 1e-2
    for index in np.ndindex(*x.shape[1:]):
        step = jnp.zeros_like(x).at[(slice(None), *index)].set(h)
        up, down = (distance(denoised(x + one), LABEL) for one in (step, -step))
        push[(slice(None), *index)] = (up - down) / (2 * h)
    rate = weight * float(path.node(s).alpha / path.node(t).alpha)
    want = make(clean, noise) - rate * push
    grid = np.array([t, s])
    through = jg.energy(weight, distance, through="network")
    same = jg.tfg(fall, mean=0, variance=weight)
    for guidance in (through, same):
        out = sample(guidance, path, grid=grid)
        np.testing.assert_allclose(out, want, rtol=1e-3, atol=1e-3)
    assert np.abs(want - make(clean, noise)).max() > 0.05


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", [paths.VP(), *rest(paths.Linear())], ids=str)
def test_mean_alone_is_mpgd(path):
    """Denoised moves, the noise stays; a quadratic is left by 1 - weight per step."""
    t, s, weight = 0.7, 0.4, 0.25
    _, _, clean, noise, make = one_step(path, t, s)
    centre = 0.4 * LABEL.astype(jnp.float32)[:, None, None] - 0.3
    for steps, guidance in (
        (1, jg.energy(weight, distance)),
        (1, jg.tfg(fall, mean=weight, variance=0, steps=1)),
        (4, jg.tfg(fall, mean=weight, variance=0)),
    ):
        moved = centre + (1 - weight) ** steps * (clean - centre)
        out = sample(guidance, path, grid=np.array([t, s]))
        np.testing.assert_allclose(out, make(moved, noise), rtol=1e-4, atol=1e-5)


def test_behind_cfg_the_energy_moves_the_guided_denoised_and_keeps_its_noise():
    t, s = 0.7, 0.4
    x, _, clean, _, make = one_step(paths.Linear(), t, s)
    null = MODEL.predict("denoised", paths.Linear(), x, jnp.full(4, 0.7), NULL)
    guided = null + 2.0 * (clean - null)
    noise = (x - 0.3 * guided) / 0.7
    centre = 0.4 * LABEL.astype(jnp.float32)[:, None, None] - 0.3
    chain = jg.chain(jg.cfg(2.0), jg.energy(0.25, distance))
    out = sample(chain, grid=np.array([t, s]))
    want = make(guided + 0.25 * (centre - guided), noise)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def slope(x0, label):
    del label
    return x0.reshape(len(x0), -1) @ jnp.asarray([1.0, -2.0, 0.5, 1.5], x0.dtype)


@pytest.mark.exhaustive  # five programs
def test_smoothing_leaves_a_linear_function_alone_and_draws_for_others():
    plain, grid = dict(mean=0.05, variance=0.05, steps=2), np.array([0.6, 0.4])
    smooth = plain | dict(smoothing=0.3, samples=3)
    np.testing.assert_allclose(
        sample(jg.tfg(slope, **smooth), grid=grid),
        sample(jg.tfg(slope, **plain), grid=grid),
        atol=1e-5,
    )

    def peak(x0, label):
        return 3 * jnp.cos(2 * x0).reshape(len(x0), -1).sum(axis=1)

    outs = [
        sample(jg.tfg(peak, **smooth), grid=grid, key=jax.random.key(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(outs[0], outs[1])
    assert np.abs(outs[0] - outs[2]).max() > 1e-3
    with pytest.raises(ValueError, match="tfg: need a PRNG key"):
        sample(jg.tfg(slope, **smooth), key=None)


def test_schedules_follow_the_steps_of_the_grid():
    path, grid = paths.VP(), np.linspace(0.9, 0.1, 9)
    square = path.node(grid).alpha ** 2
    ratio = square[:-1] / square[1:]
    for shape, want in (("increase", ratio), ("decrease", 1 - ratio)):
        schedule = tfg_schedule(2.0, shape, path, grid)
        got = [float(schedule.on_host(t)) for t in grid[:-1]]
        np.testing.assert_allclose(got, 2.0 * len(want) * want / want.sum(), rtol=1e-6)
        np.testing.assert_allclose(schedule.on_grid(grid[:-1], grid[:-1]), got, 1e-5)
    assert tfg_schedule(2.0, "constant", path, grid).on_host(0.5) == 2.0
    guidance = jg.tfg(fall, mean=tfg_schedule(0.2, "increase", path, grid), variance=0)
    assert np.isfinite(sample(guidance, path, grid=grid)).all()
    with pytest.raises(ValueError, match="tfg_schedule: need shape in"):
        tfg_schedule(2.0, "up", path, grid)


def weighed(params, x, t, label):
    del t, label
    return -(params * x**2).reshape(len(x), -1).sum(axis=1)


def test_weights_of_a_classifier_are_traced():
    probe = tf.toy_probe()
    traces, outs = [], []
    for params in (jnp.float32(0.2), jnp.float32(0.4)):
        function = jax.tree_util.Partial(weighed, params)
        out = jg.generate(
            probe.network(), tf.start(), LABEL, grid=GRID, sampler=jg.euler(),
            guidance=jg.classifier(1.0, function),
        )  # fmt: skip
        traces.append(probe.traces)
        outs.append(out)
    assert traces[0] == traces[1]
    assert np.abs(outs[0] - outs[1]).max() > 1e-3

    def loss(params):
        function = jax.tree_util.Partial(weighed, params)
        return sample(jg.classifier(1.0, function)).sum()

    h = 1e-2
    change = (loss(0.3 + h) - loss(0.3 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(0.3), change, rtol=1e-2)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.energy(1.0, distance, through="x"), "energy: need through in"),
        (lambda: jg.tfg(fall, steps=0), "tfg: need an integer steps"),
        (lambda: jg.tfg(fall, smoothing=-1.0), "tfg: need smoothing >= 0"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_missing_function_or_condition_is_named():
    with pytest.raises(ValueError, match="classifier: need a function"):
        jg.classifier(1.0, 3)
    for guidance in (
        jg.classifier(1.0, bayes(paths.Linear()), condition="y"),
        jg.classifier_denoised(1.0, lambda x0: x0[:, 0], condition="y"),
        jg.energy(1.0, distance, condition="y"),
    ):
        with pytest.raises(ValueError, match=r"need a condition named 'y'.*conds="):
            sample(guidance)
