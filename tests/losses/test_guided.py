"""Losses with guidance in their target: reductions, teachers, windows and mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import losses, paths

FAST_COMPILE = True
NULL = 3
PATH = paths.Linear()
COMMON = dict(path=PATH, null_label=NULL)


def network(params, x, t, label, scale=None, beta=None, duration=None):
    """Smooth in everything; beta 1, scale 1 and duration 0 leave it as it is."""
    shift = t.astype(x.dtype) + 0.3 * label.astype(x.dtype)
    shift = shift.reshape(-1, 1, 1, 1)
    numbers = [
        n - c for n, c in ((scale, 1), (beta, 1), (duration, 0)) if n is not None
    ]
    for number in numbers:
        shift = shift + number.reshape(-1, 1, 1, 1).astype(x.dtype)
    return jnp.asarray(params, x.dtype) * jnp.sin(2 * x + shift) + shift


def examples(count=24, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.normal(size=(count, 2, 2, 1)), dtype)
    return x0, jnp.asarray(rng.integers(0, NULL, count), jnp.int32)


OWN = {  # losses with the network alone
    "flow_matching": {},
    "gft": {},
    "mean_flow": dict(omega=0.7, kappa=0.4),
}
TAUGHT = {  # losses with a teacher
    "model_guidance": dict(weight=0.5, t_hi=1.0),
    "scale_aware_model_guidance": dict(guided_share=0.6, t_hi=1.0),
    "cfg_distillation": {},
}
ALL = OWN | TAUGHT


def evaluate(name, params, teacher, batch, key, **changes):
    """The loss [B] of a network and, where it has one, a teacher."""
    nets = [functools.partial(network, params)]
    if name in TAUGHT:
        nets.append(functools.partial(network, teacher))
    return getattr(losses, name)(*nets, batch, key, **(COMMON | ALL[name] | changes))


PLAIN = [
    ("model_guidance", dict(weight=0.0)),
    ("model_guidance", dict(t_lo=0.5, t_hi=0.5)),
    ("scale_aware_model_guidance", dict(guided_share=0.0, label_drop=0.0)),
    ("scale_aware_model_guidance", dict(scales=(1.0, 1.0), label_drop=0.0)),
    ("scale_aware_model_guidance", dict(start=0.0, label_drop=0.0)),
    ("gft", dict(betas=(1.0, 1.0))),
    (
        "mean_flow",
        dict(
            omega=1.0,
            kappa=0.0,
            flow_ratio=1.0,
            power=0.0,
            t_sampling=losses.uniform_t,
        ),
    ),
]


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        pytest.param(*one, marks=[] if index in (0, 5) else [pytest.mark.exhaustive])
        for index, one in enumerate(PLAIN)
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_neutral_loss_is_flow_matching_of_the_same_draws(name, neutral, key):
    @jax.jit
    def both(batch):
        drop = {k: v for k, v in neutral.items() if k == "label_drop"}
        guided = evaluate(name, 0.7, 5.0, batch, key, **neutral)
        return guided, evaluate("flow_matching", 0.7, 0.0, batch, key, **drop)

    np.testing.assert_allclose(*both(examples()), rtol=2e-5)


@pytest.mark.parametrize("name", list(TAUGHT))
def test_no_gradient_flows_to_the_teacher_though_it_matters(name, key):
    @jax.jit
    def run(teacher):
        def total(params, teacher):
            return evaluate(name, params, teacher, examples(), key).sum()

        return total(0.7, teacher), jax.grad(total, argnums=(0, 1))(0.7, teacher)

    value, (own, none) = run(5.0)
    assert float(none) == 0 and float(own) != 0
    assert float(run(2.0)[0]) != float(value)


@pytest.mark.parametrize("name", ["gft", "mean_flow"])
def test_a_network_that_teaches_itself_is_followed_by_no_gradient_there(name, key):
    """The gradient is that of a frozen copy in the place of the teacher."""

    @jax.jit
    def run(params):
        plain = jax.grad(lambda p: evaluate(name, p, 0.0, examples(), key).sum())
        error = 1e-2
        near = [
            evaluate(name, params + s * error, 0.0, examples(), key).sum()
            for s in (-1, 1)
        ]
        return plain(params), (near[1] - near[0]) / (2 * error)

    gradient, whole = run(0.7)
    assert abs(float(gradient) - float(whole)) > 1e-2 * abs(float(whole))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", list(ALL))
def test_half_precision_gives_a_float32_loss_near_the_full_one(name, key):
    @functools.partial(jax.jit, static_argnums=0)
    def run(dtype):
        return evaluate(name, 0.7, 0.5, examples(dtype=dtype), key)

    narrow, wide = run(jnp.bfloat16), run(jnp.float32)
    assert narrow.dtype == wide.dtype == jnp.float32 and wide.shape == (24,)
    np.testing.assert_allclose(narrow, wide, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("traced", [False, True])
def test_a_teacher_costs_nothing_while_the_weight_is_zero(weight, traced, key):
    ran = []

    def teacher(x, t, label):
        jax.debug.callback(lambda: ran.append(1))
        return network(1.0, x, t, label)

    def run(weight):
        own = functools.partial(network, 0.7)
        return losses.model_guidance(
            own, teacher, examples(), key, weight=weight, **COMMON
        )

    jax.jit(run)(weight) if traced else jax.jit(lambda: run(weight))()
    jax.effects_barrier()
    assert len(ran) == (2 if weight else 0)


def test_only_the_window_is_guided_and_dropped_samples_never(key):
    @jax.jit
    def run(batch):
        window = dict(t_lo=0.3, t_hi=0.6)
        guided = evaluate("model_guidance", 0.7, 5.0, batch, key, **window)
        return guided, evaluate("model_guidance", 0.7, 5.0, batch, key, weight=0.0)

    batch = examples(200)
    noising, dropping, _ = losses.draws(key, 200).split(3)
    t = losses.uniform_t(noising.split(2)[0])
    dropped = dropping.uniform() < 0.1
    guided, plain = run(batch)
    expected = (t >= 0.3) & (t < 0.6) & ~dropped
    assert 0 < expected.sum() < 200 and dropped.sum() > 0
    np.testing.assert_array_equal(np.abs(guided - plain) > 1e-6, expected)


def noisy_batch(key, count=2000):
    x0, label = examples(count)
    made = losses.corrupt(
        x0, losses.draws(key, count), path=PATH, t_sampling=losses.uniform_t
    )
    return made, label


def constant(x, t, label):
    """A teacher that says the square of the label."""
    del t
    return jnp.zeros_like(x) + jnp.square(label.astype(x.dtype)).reshape(-1, 1, 1, 1)


def test_references_are_the_teacher_without_this_class(key):
    noisy, label = noisy_batch(key)
    drawn = losses.draws(key, len(label))

    def away(reference):
        return np.asarray(jax.jit(reference, static_argnums=0)(
            constant, noisy, label, drawn._replace(total=len(label))
        ))[:, 0, 0, 0]  # fmt: skip

    np.testing.assert_array_equal(away(losses.null_class(NULL)), 9.0)
    np.testing.assert_allclose(away(losses.mean_class(3)), 5 / 3, rtol=1e-6)
    two = away(losses.mean_class(3, 2))
    assert two[0] in (0.5, 2.0, 2.5) and np.all(two == two[0])
    other = away(losses.other_class(3))
    assert not np.any(other == np.square(np.asarray(label)))
    for one in range(3):
        chosen = other[np.asarray(label) == one]
        rest = [c * c for c in range(3) if c != one]
        assert sorted(set(chosen)) == rest
        np.testing.assert_allclose(np.mean(chosen == rest[0]), 0.5, atol=0.08)


def test_the_scale_aware_batch_has_three_kinds_of_samples(key):
    seen = {}

    @jax.jit
    def run(batch):
        def own(x, t, label, scale):
            seen["label"], seen["scale"] = label, scale
            return x

        teacher = functools.partial(network, 1.0)
        losses.scale_aware_model_guidance(
            own, teacher, batch, key, scales=(1.5, 2.5), **COMMON
        )
        return dict(seen)

    batch = examples(2000)
    shown = run(batch)
    label, scale = np.asarray(shown["label"]), np.asarray(shown["scale"])
    none, plain = label == NULL, scale == 1
    np.testing.assert_array_equal(none, scale == 0)
    guided = ~none & ~plain
    assert 1.5 <= scale[guided].min() and scale[guided].max() < 2.5
    shares = [none.mean(), guided.mean(), plain.mean()]
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.03)
    np.testing.assert_array_equal(label[~none], np.asarray(batch[1])[~none])


def test_the_average_velocity_of_a_gaussian_is_at_rest(key):
    """Data N(m, s^2): flow lines are known, and so is their average velocity."""
    mean, std = 0.4, 0.6
    x0 = mean + std * jax.random.normal(key, (20_000, 1, 1, 1))
    label = jnp.zeros(len(x0), jnp.int32)

    def exact(x, t, duration):
        def at(t):
            return (1 - t) * mean, jnp.sqrt(((1 - t) * std) ** 2 + t**2)

        (mean_t, std_t), (mean_r, std_r) = at(t), at(t - duration)
        moved = (1 - std_r / std_t) * (x - mean_t) + mean_t - mean_r
        return moved / duration

    @jax.jit
    def slope(scale):
        def total(params):
            def own(x, t, label, duration):
                t, duration = (n.reshape(-1, 1, 1, 1) for n in (t, duration))
                return scale * exact(x, t, duration + 1e-3) + params[0] + params[1] * x

            return losses.mean_flow(
                own,
                (x0, label),
                jax.random.key(3),
                flow_ratio=0.0,
                power=0.0,
                t_sampling=lambda draws: draws.uniform(0.1, 0.9),
                **COMMON,
            ).mean()

        return jax.grad(total)(jnp.zeros(2))

    assert np.abs(slope(1.0)).max() < 0.04
    assert np.abs(slope(1.3)).max() > 0.15


WRONG = [
    ("model_guidance", dict(weight=1.0), "need 0 <= weight < 1, got weight=1.0"),
    ("model_guidance", dict(label_drop=1.5), "got label_drop=1.5"),
    ("scale_aware_model_guidance", dict(scales=(0.5, 2.0)), r"got scales=\(0.5, 2.0\)"),
    (
        "scale_aware_model_guidance",
        dict(guided_share=0.8, label_drop=0.3),
        r"guided_share \+ label_drop",
    ),
    ("gft", dict(betas=(0.5, 1.5)), r"got betas=\(0.5, 1.5\)"),
    ("cfg_distillation", dict(scales=(3.0, 2.0)), r"got scales=\(3.0, 2.0\)"),
    ("mean_flow", dict(kappa=1.0), "got omega=0.7, kappa=1.0"),
    ("mean_flow", dict(flow_ratio=-0.1), "got flow_ratio=-0.1"),
]


@pytest.mark.parametrize(("name", "wrong", "words"), WRONG)
def test_wrong_numbers_are_named(name, wrong, words, key):
    with pytest.raises(ValueError, match=words):
        evaluate(name, 0.7, 0.5, examples(2), key, **wrong)


def test_references_need_classes():
    with pytest.raises(ValueError, match="integer num_classes >= 2, got num_classes=1"):
        losses.other_class(1)
    with pytest.raises(ValueError, match="integer num_classes >= 5, got num_classes=3"):
        losses.mean_class(3, 5)
