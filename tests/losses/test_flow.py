"""The flow-matching loss against what it must be for exact and for bad networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import losses, paths
from jaxguide.errors import InputError

FAST_COMPILE = True
PATHS = [paths.Linear(), paths.GVP(), paths.VP()]


def one_point(count=4000):
    """A batch whose images are all the same: its best predictions are closed forms."""
    x0 = jnp.broadcast_to(jnp.array([[[0.3], [-0.7]]]), (count, 1, 2, 1))
    return x0, jnp.zeros(count, jnp.int32)


@pytest.mark.parametrize("kind", ["velocity", "denoised", "noise"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_the_exact_network_of_one_image_has_no_loss(path, kind, key):
    x0, label = one_point(200)

    def exact(x, t, label):
        return paths.convert(x0, x, path.node(t), "denoised", kind)

    loss = losses.flow_matching(
        exact, (x0, label), key, path=path, kind=kind, null_label=1
    )
    assert loss.shape == (200,)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 0, atol=1e-4)


def test_a_network_of_zeros_pays_the_variance_of_the_velocity(key):
    x0, label = one_point()
    loss = losses.flow_matching(
        lambda x, t, label: jnp.zeros_like(x),
        (x0, label),
        key,
        path=paths.Linear(),
        null_label=1,
    )
    expected = 1 + (0.3**2 + 0.7**2) / 2  # E (noise - x0)^2
    np.testing.assert_allclose(loss.mean(), expected, rtol=0.05)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_labels_are_dropped_at_the_given_rate(rate, key):
    seen = []

    def watching(x, t, label):
        seen.append(label)
        return x

    x0, _ = one_point()
    label = jnp.full(len(x0), 3, jnp.int32)
    losses.flow_matching(
        watching,
        (x0, label),
        key,
        path=paths.Linear(),
        label_drop=rate,
        null_label=7,
    )
    assert set(np.unique(seen[0]).tolist()) <= {3, 7}
    np.testing.assert_allclose(np.mean(seen[0] == 7), rate, atol=0.03)


def test_the_loss_is_a_function_of_the_key(key):
    x0, label = one_point(8)
    loss = functools.partial(
        losses.flow_matching,
        lambda x, t, label: x,
        (x0, label),
        path=paths.Linear(),
        null_label=1,
    )
    np.testing.assert_array_equal(loss(key), loss(key))
    assert not np.array_equal(loss(key), loss(jax.random.key(1)))


def test_uniform_times_are_uniform(key):
    t = np.sort(np.asarray(losses.uniform_t(losses.draws(key, 4000))))
    np.testing.assert_allclose(t, np.linspace(0, 1, 4000), atol=0.03)
    assert t[0] > 0 and t[-1] < 1


def test_logit_normal_times_have_a_normal_logit(key):
    t = np.asarray(losses.logit_normal_t(0.5, 0.8)(losses.draws(key, 8000)), np.float64)
    logit = np.log(t / (1 - t))
    np.testing.assert_allclose([logit.mean(), logit.std()], [0.5, 0.8], atol=0.03)


def of_a_gaussian(kind, path):
    """The exact network for data N(0, I), and the data."""

    def predict(x, t, label):
        node = path.node(t)
        total = paths.expand(node.alpha**2 + node.sigma**2, x)
        noise = paths.expand(node.sigma, x) * x / total
        return noise if kind == "noise" else -x / total

    x0 = jax.random.normal(jax.random.key(5), (4000, 1, 2, 1))
    return predict, (x0, jnp.zeros(len(x0), jnp.int32))


@pytest.mark.parametrize("kind", ["noise", "score"])
@pytest.mark.parametrize(
    ("weighting", "want"),
    [
        # With s = (1 - t)^2 + t^2 the noise of x_t has variance (1 - t)^2 / s, whose
        # integral is 1/2; the velocity has 1 / s, whose integral is pi / 2.
        ("none", 0.5),
        ("velocity", np.pi / 2),
    ],
)
def test_the_exact_network_of_a_gaussian_has_the_loss_of_the_closed_form(
    weighting, want, kind, key
):
    path = paths.Linear()
    predict, batch = of_a_gaussian(kind, path)
    loss = losses.flow_matching(
        predict, batch, key, path=path, kind=kind, weighting=weighting, null_label=1,
        t_sampling=losses.stratified_t,
    )  # fmt: skip
    np.testing.assert_allclose(loss.mean(), want, rtol=0.05)
    assert loss.max() < 100 * want  # unweighted: 1 % of the samples make 97 % of it


def test_the_likelihood_weighting_is_that_of_sit(key):
    """beta / (2 sigma^2) on VP, where SiT's drift has the variance beta / 2."""
    path = paths.VP()
    predict, batch = of_a_gaussian("noise", path)
    seen = []

    def times(draws):
        seen.append(losses.uniform_t(draws))
        return seen[-1]

    plain, weighted = (
        losses.flow_matching(
            predict, batch, key, path=path, kind="noise", weighting=weighting,
            null_label=1, t_sampling=times,
        )
        for weighting in ("none", "likelihood")
    )  # fmt: skip
    t = np.asarray(seen[0], np.float64)
    beta = path.beta_min + t * (path.beta_max - path.beta_min)
    want = plain * beta / 2 / path.node(t).sigma ** 2
    np.testing.assert_allclose(weighted, want, rtol=2e-3)


MISTAKES = {
    "label_drop": (dict(label_drop=2), "need 0 <= label_drop <= 1, got label_drop=2"),
    "no number": (dict(label_drop=None), "label_drop=None"),
    "not finite": (dict(label_drop=np.nan), "label_drop=nan"),
    "kind": (dict(kind="velocty"), "flow_matching: need kind in .*kind='velocty'"),
    "path": (dict(path="linear"), "flow_matching: need a noise path.*path='linear'"),
    "null label": (dict(null_label=0.5), "need an integer null_label.*null_label=0.5"),
    "times": (dict(t_sampling="uniform"), "need a function t_sampling"),
    "weighting": (dict(weighting="snr"), "need weighting in .*weighting='snr'"),
    "weighted velocity": (dict(weighting="velocity"), "need kind 'noise' or 'score'"),
    "batch": (dict(batch=jnp.ones((2, 3))), r"need batch=\(x0, label\)"),
    "labels": (
        dict(batch=(jnp.ones((2, 3)), jnp.zeros(3, jnp.int32))),
        r"x0.shape=\(2, 3\), label.shape=\(3,\)",
    ),
    "float labels": (dict(batch=(jnp.ones((2, 3)), jnp.zeros(2))), "of float32"),
    "key": (dict(key=0), "draws: need a PRNG key, got key=0"),
    "draws": (
        dict(key=losses.draws(jax.random.key(0), 3)),
        "draws: need draws of 2 examples, got 3",
    ),
    "prediction": (
        dict(predict=lambda x, t, label: x[..., :1]),
        r"need a prediction shaped like x, got \(2, 1\) for x.shape=\(2, 3\)",
    ),
    "pair": (dict(predict=lambda x, t, label: (x, x)), "shaped like x, got tuple"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, key):
    changes, match = MISTAKES[name]
    given = dict(
        predict=lambda x, t, label: x,
        batch=(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32)),
        key=key,
        path=paths.Linear(),
        null_label=1,
    )
    with pytest.raises(InputError, match=match) as error:
        losses.flow_matching(**given | changes)
    assert "\n" not in str(error.value)


RANGES = [
    (losses.model_guidance, dict(weight=np.float32(np.nan)), "weight="),
    (losses.model_guidance, dict(t_hi=750), "need 0 <= t_lo <= t_hi <= 1.*t_hi=750"),
    (losses.scale_aware_model_guidance, dict(scales=(1, np.inf)), "need finite 1 <="),
    (losses.cfg_distillation, dict(scales=(1.0, np.nan)), "need finite 1 <="),
    (losses.cfg_distillation, dict(scales=2.0), "need finite 1 <=.*scales=2.0"),
    (losses.gft, dict(betas=(0.0, np.nan)), "need 0 <= betas"),
    (losses.mean_flow, dict(omega=np.inf), "need a finite omega > 0"),
    (losses.mean_flow, dict(power=np.nan), "need a finite power >= 0"),
    (losses.ddpm_hybrid, dict(bound_weight=-1.0), "need a finite bound_weight >= 0"),
    (losses.ddpm_hybrid, {}, "need a paths.DDPM table"),
]


@pytest.mark.parametrize(("loss", "changes", "match"), RANGES)
def test_every_loss_judges_its_numbers(loss, changes, match, key):
    teachers = (lambda x, t, label: x,) * (1 + ("teacher" in loss.__annotations__))
    batch = (jnp.ones((2, 3)), jnp.zeros(2, jnp.int32))
    with pytest.raises(InputError, match=match):
        loss(*teachers, batch, key, path=paths.Linear(), null_label=1, **changes)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: losses.logit_normal_t(std=0), "need a finite std > 0, got std=0"),
        (lambda: losses.logit_normal_t(np.nan), "need a finite mean, got mean=nan"),
        (lambda: losses.mean_class(5, -1), "need an integer count >= 0.*count=-1"),
        (lambda: losses.inputs_at(np.inf, ()), "need a finite scale > 0"),
        (lambda: losses.best_scale([1.0, 2.0]), "need three distances, got 2"),
        (lambda: losses.trial_scales(np.inf), "need a finite spread > 1"),
    ],
)
def test_other_numbers_are_judged_too(make, match):
    with pytest.raises(InputError, match=match):
        make()
