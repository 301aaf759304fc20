"""Adaptive solvers: right answers, exact windows, honest counts, clear refusals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxguide as jg
from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import Network
from jaxguide.oracle import GaussianMixture
from jaxguide.samplers import adaptive
from tests import reference, reference_coupled as coupled, transforms as tf
from tests.contract.common import rest

FAST_COMPILE = True
SIZE = 8
# Two classes of one mean: guided by each other they have a closed form.
PAIR = GaussianMixture(
    means=np.full((2, SIZE), 2.0, np.float32),
    stds=np.array([0.5, 1.0], np.float32),
    labels=(0, 1),
)
MEANS = np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]])
STDS, LABELS = np.array([0.5, 0.4, 0.3]), (0, 1, 1)
MIXTURE = GaussianMixture(MEANS.astype(np.float32), STDS.astype(np.float32), LABELS)
SLOW = reference.Mixture(MEANS, STDS, np.array(LABELS), np.zeros(1), 2)


def noise(batch, size, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((batch, size)), jnp.float32)


def closed_form(start, scale, t_lo, t_hi):
    """The end of the ODE guided in [t_lo, t_hi) alone, by integrating by hand."""

    def spread(std):
        high, low = (np.sqrt((1 - t) ** 2 * std**2 + t**2) for t in (t_hi, t_lo))
        return high / low

    return 2 + 0.5 * (spread(1.0) / spread(0.5)) ** (scale - 1) * np.asarray(start)


def guided_pair(start, window, **options):
    label = jnp.zeros(len(start), jnp.int32)
    return adaptive.integrate(
        PAIR.network(),
        start,
        label,
        guidance=jg.cfg(3.0, t_lo=window[0], t_hi=window[1]),
        conds={"null": label + 1},
        **options,
    )


def watched(network, seen):
    """The network, noting (t, label of the first sample) of every evaluation."""

    def predict(x, t, label):
        jax.debug.callback(lambda t, y: seen.append((float(t), int(y))), t[0], label[0])
        return network.predict(x, t, label)

    return Network(predict, network.kind, network.path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("per_sample", [True, False])
def test_edges_of_a_window_are_exact(per_sample):
    start = noise(4, SIZE)
    options = dict(rtol=1e-5, atol=1e-6, per_sample=per_sample)
    found = guided_pair(start, (0.237, 0.713), **options)
    want = closed_form(start, 3.0, 0.237, 0.713)
    np.testing.assert_allclose(found.x, want, atol=3e-4)


@pytest.mark.parametrize("solver", [None, *rest(diffrax.Heun())])
def test_reported_nfe_is_what_was_counted_and_dead_branches_are_not_called(solver):
    seen, start = [], noise(3, SIZE)
    label = jnp.zeros(3, jnp.int32)
    found = adaptive.integrate(
        watched(PAIR.network(), seen),
        start,
        label,
        guidance=jg.cfg(3.0, t_lo=0.3, t_hi=0.7),
        conds={"null": label + 1},
        solver=solver,
        per_sample=False,
        batched=False,
    )
    jax.effects_barrier()
    assert int(found.nfe) == len(seen)
    times = [t for t, label in seen if label == 1]
    assert times and 0.3 - 1e-6 <= min(times) and max(times) <= 0.7 + 1e-6
    assert found.x.shape == start.shape and int(found.steps) > 3


@pytest.mark.parametrize(
    ("guidance", "least"),
    [
        pytest.param(jg.nag(3.0, cond="null"), 3, id="nag"),  # two streams in one call
        pytest.param(jg.cfg(2.0), 2, id="cfg", marks=pytest.mark.exhaustive),
        pytest.param(  # four crops
            jg.sliding_window(1.5), 5, id="crops", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_a_branch_that_is_several_evaluations_counts_as_several(guidance, least):
    main, label = tf.toy_probe(), tf.labels()
    found = adaptive.integrate(
        main.network(),
        tf.start(),
        label.pop("cond"),
        guidance=guidance,
        conds=label,
        per_sample=False,
    )
    assert int(found.nfe) == main.evaluations() == least * (6 * int(found.steps) + 1)


@pytest.mark.exhaustive
def test_agrees_with_scipy_in_float64_and_with_many_fixed_steps():
    start, label = noise(3, 2, seed=1), np.array([0, 1, 1])

    def velocity(t, flat):
        x = flat.reshape(3, 2)
        raw = SLOW.velocity(x, t, label)
        null = SLOW.velocity(x, t, np.full(3, 2))
        return (null + 2.5 * (raw - null)).reshape(-1)

    exact = solve_ivp(
        velocity, (1.0, 0.0), np.float64(start).reshape(-1), rtol=1e-8, atol=1e-10
    )
    want = exact.y[:, -1].reshape(3, 2)
    labels = jnp.asarray(label, jnp.int32)
    options = dict(guidance=jg.cfg(2.5), conds={"null": MIXTURE.null(3)})
    found = adaptive.integrate(
        MIXTURE.network(),
        start,
        labels,
        solver=diffrax.Tsit5(),
        rtol=1e-5,
        atol=1e-6,
        per_sample=False,
        **options,
    )
    np.testing.assert_allclose(found.x, want, atol=5e-4)
    fixed = jg.generate(
        MIXTURE.network(),
        start,
        labels,
        grid=jg.uniform(200),
        sampler=jg.heun(),
        **options,
    )
    np.testing.assert_allclose(fixed, want, atol=1e-3)


@pytest.mark.exhaustive  # twice an integration
def test_a_sample_does_not_depend_on_its_batch():
    start = noise(3, SIZE)
    together = guided_pair(start, (0.0, 1.0))
    alone = guided_pair(start[1:2], (0.0, 1.0))
    np.testing.assert_allclose(together.x[1], alone.x[0], atol=1e-6)
    assert int(together.steps[1]) == int(alone.steps[0])
    assert together.nfe.shape == (3,)


def test_may_be_jitted_and_stops_where_it_is_told():
    start = noise(2, SIZE)
    plain = jax.jit(
        lambda x: (
            adaptive.integrate(
                PAIR.network("denoised"),
                x,
                jnp.zeros(2, jnp.int32),
                rtol=1e-5,
                t_min=0.2,
                per_sample=False,
            ).x
        )
    )(start)
    node = paths.Linear().node(0.2)
    std = np.sqrt(node.alpha**2 * 0.25 + node.sigma**2)
    np.testing.assert_allclose(plain, node.alpha * 2 + std * start, atol=3e-4)


@pytest.mark.parametrize(
    ("guidance", "options", "match"),
    [
        (jg.sg_prev(1.0), {}, "need transforms without memory, got sg_prev"),
        (jg.cfg(2.0), {"t_min": 0.5, "t_max": 0.5}, "need 0 <= t_min < t_max <= 1"),
        (jg.cfg(2.0), {"t_max": 1.5}, "got t_min=0.0, t_max=1.5"),
        (jg.cfg(2.0), {}, "need a condition named 'null'"),
        (None, {"rtol": -1.0}, "integrate: need a finite rtol >= 0, got rtol=-1.0"),
        (None, {"atol": np.nan}, "integrate: need a finite atol >= 0, got atol=nan"),
        (None, {"rtol": 0.0, "atol": 0}, "need rtol or atol above 0, got rtol=0.0"),
        (None, {"max_steps": 0}, "need an integer max_steps >= 1, got max_steps=0"),
        pytest.param(
            None,
            {"max_steps": 2},
            "need a velocity that 2 steps can follow",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_refuses(guidance, options, match):
    label = jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match=match):
        adaptive.integrate(
            PAIR.network(), noise(2, SIZE), label, guidance=guidance, **options
        )


def test_a_velocity_needs_no_slope_of_the_path_at_clean_data():
    """sigma' of VP is infinite at t = 0; the velocity of the exact network is not."""

    def predict(x, t, label):
        node = paths.VP().node(t)
        rate = paths.expand(node.dalpha / node.alpha, x)
        return rate * (x + PAIR.score(x, label, node))  # no product with sigma'

    network = Network(predict, "velocity", paths.VP())
    start, label = noise(3, SIZE), jnp.zeros(3, jnp.int32)
    options = dict(rtol=1e-4, per_sample=False)
    x = adaptive.integrate(network, start, label, **options).x
    last = paths.VP().node(1.0)
    spread = np.sqrt(last.alpha**2 * 0.25 + last.sigma**2)
    want = 2 + 0.5 * (start * float(last.sigma) - 2 * float(last.alpha)) / float(spread)
    np.testing.assert_allclose(x, want, atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "path", "match"),
    [
        ("noise", paths.Linear(), "need alpha > 0 .* noise network.*t=1.0"),
        ("denoised", paths.Linear(), "need sigma > 0 .* denoised network.*t=0.0"),
        ("noise", paths.VP(), "need t_min > 0 for a noise network on VP"),
        ("score", paths.DDPM(), "need t_min > 0 for a score network on DDPM"),
    ],
)
def test_an_end_without_a_velocity_is_refused(kind, path, match):
    label = jnp.zeros(2, jnp.int32)
    with pytest.raises(InputError, match=f"integrate: {match}"):
        adaptive.integrate(PAIR.network(kind, path), noise(2, SIZE), label)


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("s2", jg.s2(1.0, drop=0.3)),
        ("icg", jg.icg(2.0, num_classes=3)),
        ("tpg", jg.tpg(1.0)),
        # Draws outside its branches.
        ("tfg", jg.tfg(coupled.log_prob, mean=0.1, variance=0.2, smoothing=0.1)),
        ("icg", jg.chain(jg.cfg(2.0), jg.icg(2.0, num_classes=3, t_hi=0.1))),
    ],
)
def test_refuses_what_draws_before_anything_runs(name, guidance):
    main, label = tf.toy_probe(), tf.labels()
    with pytest.raises(ValueError) as error:
        adaptive.integrate(
            main.network(),
            tf.start(),
            label.pop("cond"),
            guidance=guidance,
            conds=label,
        )
    assert str(error.value) == (
        f"integrate: need deterministic transforms, got {name}. A fresh draw at every "
        "call is no vector field and defeats the error control. Use generate with "
        "sampler=euler()."
    )
    assert main.evaluations() == 0
