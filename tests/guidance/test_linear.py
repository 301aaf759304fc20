"""What the linear methods with several branches must reduce to, exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance
from jaxguide.guidance import RandomCondition
from tests import reference as ref, transforms as tf
from tests.guidance.test_oracle import adams_bashforth, flat

FAST_COMPILE = True
MAIN, WEAK = tf.mixture(), tf.weaker()
MAIN64, WEAK64 = tf.in_float64(MAIN), tf.in_float64(WEAK)
T = 0.6
X = tf.start()
LABELS = tf.labels()
# What a change that draws sees.
DRAWING = guidance.View(jg.Network(None), None, jax.random.key(0))


def guided(guidance, main=MAIN, *, x=X, t=T, key=0, labels=LABELS, **networks):
    """One guided velocity of a mixture, and the network calls it took."""
    probe = tf.oracle_probe(main)
    others = {name: tf.oracle_probe(model) for name, model in networks.items()}
    function = jg.guide(
        probe.network().predict, guidance, depth=6,
        networks={name: other.network().predict for name, other in others.items()},
    )  # fmt: skip
    with jax.disable_jit():
        out, _ = function(
            x, jnp.full(len(x), t), labels["cond"], function.init(x), conds=labels,
            key=jax.random.key(key),
        )  # fmt: skip
    probe.calls += [seen for other in others.values() for seen in other.calls]
    return np.asarray(out), probe


def plain(model=MAIN, cond="cond", x=X, t=T):
    """An unguided velocity, float64."""
    return ref.Scene(
        tf.in_float64(model), WEAK64, flat(x), t,
        {k: np.asarray(v) for k, v in LABELS.items()}, [], None,
    ).v(cond)  # fmt: skip


def close(found, want, atol=2e-5):
    np.testing.assert_allclose(flat(found), flat(want), atol=atol, rtol=2e-5)


RAW, NULL, OTHER = plain(), plain(cond="null"), plain(cond="other")


# Nested, composed, negative.


def test_nested_with_all_scales_one_is_the_full_conditional_and_free():
    unguided, _ = guided(jg.chain())
    out, _ = guided(jg.nested((1.0, 1.0, 1.0), via=("other", "negative")))
    np.testing.assert_array_equal(out, unguided)
    parts = jg.nested((1.0, 1.0), via=("other",))
    assert parts.live(T) == (False, False)


def test_nested_with_equal_scales_is_cfg_whatever_lies_between():
    out, _ = guided(jg.nested((2.5, 2.5, 2.5), via=("other", "negative")))
    close(out, NULL + 2.5 * (RAW - NULL))


def test_nested_pays_for_the_stages_that_act():
    for scales, live in [((2.0, 1.0), (True, False)), ((1.0, 2.0), (False, True))]:
        assert jg.nested(scales, via=("other",)).live(T) == live


def test_graph_conditions_are_compared_with_the_text_alone():
    terms = [
        jg.compose("other", 0.7, origin="cond"),
        jg.compose("negative", 0.4, origin="cond"),
    ]
    out, probe = guided(jg.chain(jg.cfg(1.8), *terms))
    want = NULL + 1.8 * (RAW - NULL)
    want = want + 0.7 * (OTHER - RAW) + 0.4 * (plain(cond="negative") - RAW)
    close(out, want)
    assert probe.evaluations() == 4


def test_negative_conditions_change_with_the_phase():
    early = jg.negative(2.0, cond="other", t_lo=0.5)
    late = jg.negative(2.0, cond="negative", t_hi=0.5)
    both = jg.chain(early, late)
    assert both.live(0.7) == (True, False) and both.live(0.3) == (False, True)
    close(guided(early)[0], OTHER + 2.0 * (RAW - OTHER))


def test_perp_neg_leaves_the_wanted_direction_alone():
    out, _ = guided(jg.perp_neg(0.8))
    moved, axis = flat(out) - RAW, RAW - NULL
    cosine = (moved * axis).sum(1) / np.sqrt((moved**2).sum(1) * (axis**2).sum(1))
    np.testing.assert_allclose(cosine, 0, atol=1e-5)
    assert np.abs(moved).max() > 0.05


def test_perp_neg_of_the_wanted_condition_itself_does_nothing():
    out, _ = guided(jg.perp_neg(0.8, negative="cond"))
    close(out, RAW)


def test_perp_neg_does_not_look_at_the_neighbours_in_the_batch():
    """ComfyUI takes one inner product over the batch, which differs."""
    labels = {name: label[:1] for name, label in LABELS.items()}
    alone, _ = guided(jg.perp_neg(0.8), x=X[:1], labels=labels)
    together, _ = guided(jg.perp_neg(0.8))
    np.testing.assert_allclose(together[:1], alone, atol=1e-6)
    axis, bad = RAW - NULL, plain(cond="negative") - NULL
    share = (bad * axis).sum() / (axis**2).sum()
    batch_wide = RAW - 0.8 * (bad - share * axis)
    assert np.abs(flat(together) - batch_wide).max() > 1e-3


# Another set of weights.


def test_autoguidance_by_the_network_itself_is_nothing():
    out, _ = guided(jg.autoguidance(3.0), weak=MAIN)
    np.testing.assert_array_equal(out, guided(jg.chain())[0])


def test_two_references_are_interpolated_by_two_scales():
    scale, share = 2.4, 0.3
    weak = plain(WEAK)
    parts = jg.chain(
        jg.autoguidance(1 + (1 - share) * (scale - 1)),
        jg.cfg(1 + share * (scale - 1)),
    )
    away = (1 - share) * weak + share * NULL
    close(guided(parts, weak=WEAK)[0], away + scale * (RAW - away))


def test_rlg_goes_from_the_base_to_the_tuned_network():
    base_cfg = plain(WEAK, "null") + 1.7 * (plain(WEAK) - plain(WEAK, "null"))
    tuned_cfg = NULL + 1.7 * (RAW - NULL)
    close(guided(jg.rlg(0.0, cfg_scale=1.7), base=WEAK)[0], base_cfg)
    close(guided(jg.rlg(1.0, cfg_scale=1.7), base=WEAK)[0], tuned_cfg)
    close(guided(jg.rlg(0.0), base=WEAK)[0], plain(WEAK))
    same, _ = guided(jg.rlg(1.0), base=WEAK)
    np.testing.assert_array_equal(same, guided(jg.chain())[0])


def rlg_cost(scale, cfg_scale):
    network = tf.oracle_probe(MAIN).network()
    grid, networks = np.array([0.6, 0.5]), {"base": network}
    parts = jg.rlg(scale, cfg_scale=cfg_scale)
    return jg.cost(network, parts, grid, jg.euler(), networks=networks).nfe


def test_rlg_without_cfg_takes_two_evaluations():
    assert rlg_cost(2.0, 1.0) == 2
    assert rlg_cost(2.0, 3.0) == 4
    assert rlg_cost(1.0, 3.0) == 2
    assert rlg_cost(1.0, 1.0) == 1


def mixed(omega):
    return jg.interpolate_weights(WEAK.network(), MAIN.network(), omega)


def personal(omega):
    """Steering Guidance: the null prediction of two mixtures' weights in between."""
    function = jg.guide(
        tf.oracle_probe(MAIN).network().predict,
        jg.reference_network(2.2, network="mixed", cond="null"),
        networks={"mixed": mixed(omega).predict},
    )  # fmt: skip
    out, _ = function(
        X, jnp.full(len(X), T), LABELS["cond"], function.init(X), conds=LABELS
    )
    return out


def test_mixed_weights_lie_between_domain_guidance_and_cfg():
    with jax.disable_jit():
        first, last = personal(0.0), personal(1.0)
        domain = guided(
            jg.reference_network(2.2, network="pretrained", cond="null"),
            pretrained=WEAK,
        )[0]
        half = personal(0.5)
    close(first, domain)
    close(last, guided(jg.cfg(2.2))[0])
    stds = (np.asarray(MAIN.stds) + np.asarray(WEAK.stds)) / 2
    model = dataclasses.replace(MAIN, stds=jnp.asarray(stds))
    null = plain(model, "null")
    close(half, null + 2.2 * (RAW - null))


@pytest.mark.parametrize("paper", guidance.PAPERS, ids=lambda paper: paper.name)
def test_the_settings_of_a_paper_make_a_transform(paper):
    one = eval(paper.call, vars(jg) | {"scale": 2.0})
    assert one.name == paper.function
    assert paper.name not in vars(jg)


def test_interpolate_is_linear_and_keeps_what_is_no_weight():
    first = {"w": jnp.asarray([1.0, 3.0]), "b": jnp.bfloat16(2.0), "n": jnp.int32(4)}
    second = {"w": jnp.asarray([3.0, -1.0]), "b": jnp.bfloat16(4.0), "n": jnp.int32(9)}
    half = jg.interpolate_weights(first, second, 0.5)
    np.testing.assert_array_equal(half["w"], [2.0, 1.0])
    assert half["b"].dtype == jnp.bfloat16 and float(half["b"]) == 3.0
    assert half["n"] is first["n"]
    for omega, want in ((0.0, first), (1.0, second)):
        np.testing.assert_array_equal(
            jg.interpolate_weights(first, second, omega)["w"], want["w"]
        )


def test_networks_are_interpolated_by_their_weights():
    network = mixed(0.25)
    assert isinstance(network, jg.Network)
    stds = 0.75 * np.asarray(WEAK.stds) + 0.25 * np.asarray(MAIN.stds)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(network)]
    found = [leaf for leaf in leaves if leaf.shape == stds.shape]
    assert any(np.allclose(leaf, stds) for leaf in found)


def test_sine_without_the_tuned_network_is_cfg():
    out, _ = guided(jg.sine(2.5, 0.0, cond="other"), tuned=WEAK)
    np.testing.assert_array_equal(out, guided(jg.cfg(2.5))[0])
    tuned = plain(WEAK, "other")
    out, _ = guided(jg.sine(2.5, 1.0, cond="other"), tuned=WEAK)
    close(out, NULL + 2.5 * (tuned - NULL))


# Random conditions.


def one_label(key, cond):
    """A point mass."""
    del key
    return jnp.full_like(cond, 1)


def test_icg_with_one_certain_label_is_that_negative_condition():
    labels = LABELS | {"negative": jnp.full_like(LABELS["cond"], 1)}
    certain, _ = guided(jg.icg(2.3, draw=one_label), labels=labels)
    wanted, _ = guided(jg.negative(2.3), labels=labels)
    np.testing.assert_array_equal(certain, wanted)


def test_the_mean_of_icg_is_the_mean_over_labels():
    count = 3000
    x = jnp.broadcast_to(X[:1], (count, *X.shape[1:]))
    labels = {"cond": jnp.zeros(count, jnp.int32)}
    out, _ = guided(jg.icg(2.0, num_classes=3), x=x, labels=labels)
    states = np.repeat(flat(X[:1]), 3, axis=0)
    each = MAIN64.velocity(states, T, np.arange(3))
    terms = each[0] - each  # D_y - D_j
    found = flat(out) - each[0]
    error = terms.std(axis=0) / np.sqrt(count)
    np.testing.assert_array_less(
        np.abs(found.mean(axis=0) - terms.mean(axis=0)), 5 * error + 1e-5
    )
    assert terms.std(axis=0).max() > 0.1


def test_labels_are_drawn_anew_for_every_step_sample_and_transform():
    probe = tf.oracle_probe(MAIN)
    guidance = jg.chain(jg.icg(2.0, num_classes=3), jg.icg(1.5, num_classes=3))
    with jax.disable_jit():
        tf.sample(guidance, probe, probe, np.linspace(0.9, 0.3, 9))
    cond = np.asarray(LABELS["cond"])
    drawn = [seen.label for seen in probe.calls]
    first, second = np.stack(drawn[1::3]), np.stack(drawn[2::3])
    assert np.array_equal(drawn[0], cond) and first.shape == (8, 4)
    assert len({tuple(row) for row in first}) > 4
    assert not np.array_equal(first, second)
    assert all(len(set(column)) > 1 for column in first.T)


def test_embeddings_become_noise_of_their_own_spread():
    cond = {"text": jnp.arange(4.0)[:, None] * jnp.linspace(-1, 1, 4001)[None]}
    drawn = RandomCondition().cond(cond, DRAWING)["text"]
    np.testing.assert_allclose(drawn.std(axis=1), cond["text"].std(axis=1), rtol=0.05)
    np.testing.assert_allclose(drawn.mean(axis=1), 0, atol=0.15)
    assert drawn.dtype == cond["text"].dtype
    corr = np.corrcoef(np.asarray(drawn[1:]), np.asarray(cond["text"][1:]))
    assert np.abs(corr[:3, 3:]).max() < 0.1


# Self-guidance and the solver in it.


@pytest.mark.parametrize("dynamic", [False, True])
def test_self_guidance_fades_with_its_shift(dynamic):
    def term(shift):
        return guided(jg.sg(1.0, shift=shift, dynamic=dynamic))[0] - unguided

    unguided = guided(jg.chain())[0]
    ratio = np.abs(term(0.02)).max() / np.abs(term(0.002)).max()
    assert 8 < ratio < 12


def test_the_dynamic_shift_is_a_share_of_the_time():
    constant = guided(jg.sg(1.0, shift=0.1 * 0.6))[0]
    close(guided(jg.sg(1.0, shift=0.1, dynamic=True))[0], constant)


def test_sg_prev_on_a_constant_field_adds_nothing():
    field = jg.Network(lambda x, t, label: jnp.ones_like(x) * 0.3)
    options = dict(grid=np.linspace(0.9, 0.1, 6), sampler=jg.euler())
    run = lambda guidance: jg.generate(  # noqa: E731
        field, X, LABELS["cond"], guidance=guidance, **options
    )
    for parts in (jg.sg_prev(3.0, t_hi=1.0), jg.ab2()):
        np.testing.assert_array_equal(run(parts), run(None))


def solve(guidance, grid):
    return jg.generate(
        MAIN.network(), X, jnp.zeros(tf.BATCH, jnp.int32), grid=grid,
        sampler=jg.euler(), guidance=guidance,
    )  # fmt: skip


def uneven_ab2(x, grid):
    """Adams-Bashforth 2 on any grid, with an Euler start, from the textbook."""
    label = np.zeros(len(x), int)
    before = last = None
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        slope, h = MAIN64.velocity(x, t, label), s - t
        change = slope if before is None else slope + h / (2 * last) * (slope - before)
        x, before, last = x + h * change, slope, h
    return x


def test_ab2_is_the_textbook_solver_on_any_grid():
    even = np.linspace(0.9, 0.3, 13)
    want = adams_bashforth(0.9 * flat(X), even)
    close(solve(jg.ab2(), even), want)
    close(solve(jg.sg_prev(0.5, t_hi=1.0), even), want)
    uneven = 0.3 + 0.6 * np.linspace(1, 0, 13) ** 2
    close(solve(jg.ab2(), uneven), uneven_ab2(0.9 * flat(X), uneven))
    close(solve(jg.ab2(0.0), uneven), solve(None, uneven))


def test_on_an_uneven_grid_only_the_step_ratio_keeps_order_two():
    def uneven(steps):
        """Steps of alternating length, 2 : 1."""
        lengths = np.tile([2.0, 1.0], steps // 2)
        return 0.9 - 0.6 * np.append(0, np.cumsum(lengths)) / lengths.sum()

    exact = adams_bashforth(0.9 * flat(X), np.linspace(0.9, 0.3, 3000))

    def error(rule, steps):
        return np.abs(rule(0.9 * flat(X), uneven(steps)) - exact).max()

    def fixed(x, grid):
        conds = {"cond": np.zeros(len(x), int)}
        rule = lambda s: ref.sg_prev(s, 0.5)  # noqa: E731
        return ref.euler(MAIN64, WEAK64, rule, x, grid, conds, [[] for _ in grid[:-1]])

    order = lambda rule: np.log2(error(rule, 40) / error(rule, 80))  # noqa: E731
    assert abs(order(uneven_ab2) - 2) < 0.3
    assert abs(order(fixed) - 1) < 0.3
    grid = uneven(16)
    close(solve(jg.ab2(), grid), uneven_ab2(0.9 * flat(X), grid))


def test_without_the_end_of_the_step_ab2_takes_steps_as_equal():
    def run(guidance):
        function = jg.guide(MAIN.network().predict, guidance)
        state, out = function.init(X), None
        for t in (0.6, 0.5):
            times = jnp.full(len(X), t)
            out, state = function(X, times, LABELS["cond"], state)
        return out

    with jax.disable_jit():
        close(run(jg.ab2()), run(jg.sg_prev(0.5, t_hi=1.0)))


# Mistakes.


def embeddings_wanted():
    RandomCondition().cond(LABELS["cond"], DRAWING)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.nested((1.5, 7.5), via=()), "nested: need one scale more than"),
        (lambda: jg.nested((1.5, float("nan"))), "nested: need a finite scale"),
        (lambda: jg.icg(2.0, num_classes=-1), "icg: need num_classes >= 0"),
        (
            lambda: jg.icg(2.0, num_classes=3, draw=one_label),
            "icg: need num_classes >= 0, and not beside draw",
        ),
        (embeddings_wanted, "icg: need labels and num_classes, or embeddings"),
        (lambda: jg.rlg(float("inf")), "rlg: need a finite scale"),
        (lambda: jg.rlg(2.0, cfg_scale=float("nan")), "rlg: need a finite cfg_scale"),
        (lambda: jg.sine(2.0, float("nan")), "sine: need a finite weight"),
        (lambda: jg.ab2(float("nan")), "ab2: need a finite weight"),
        (
            lambda: jg.interpolate_weights({"a": 1.0}, {"b": 1.0}, 0.5),
            "interpolate_weights: need two sets of weights of one structure",
        ),
        (
            lambda: jg.reference_network(None),
            "reference_network: need a number for scale, got None",
        ),
    ],
)
def test_bad_settings_are_refused_where_they_are_made(make, match):
    with pytest.raises(ValueError, match=match):
        make()
