"""Skip-layer and perturbed-attention guidance against diffusers' guiders, run live.

One set of random weights in both libraries, whole guided predictions at every step of a
schedule. Where diffusers does something else than its papers, a test says what.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import guidance, models
from tests.lazy import Lazy, needs

torch, _, guiders = needs(
    "torch", "diffusers", "diffusers.guiders", reason="parity needs torch and diffusers"
)
hooks = Lazy("diffusers.hooks")
seg_utils = Lazy("diffusers.hooks.smoothed_energy_guidance_utils")
diffusers_dit = Lazy("tests.diffusers_dit")

FAST_COMPILE = True
CONFIG = models.DiTConfig(
    image_size=8,
    channels=2,
    patch=2,
    width=24,
    depth=4,
    heads=2,
    num_classes=5,
    time_scale=10.0,  # at 1000 the angles themselves are only good to 1e-4
    downscale_freq_shift=1.0,
)
STEPS, BATCH = 10, 2


@functools.cache
def their_network():
    return diffusers_dit.their_network(CONFIG, std=0.2)


@functools.cache
def our_params():
    with jax.ensure_compile_time_eval():  # also where it is first asked for in a jit
        return jax.tree.map(jnp.asarray, diffusers_dit.our_params(their_network()))


@functools.cache
def seg_config():
    return guiders.smoothed_energy_guidance.SmoothedEnergyGuidanceConfig(
        indices=[1, 2], fqn="transformer_blocks"
    )


COND, NULL = np.array([3, 0]), np.array([5, 5])


def state(seed):
    shape = (BATCH, *CONFIG.image_shape)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def evaluate(x, t, label):
    """diffusers' network at noise time `t`, channels last."""
    with torch.no_grad():
        out = their_network()(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            timestep=torch.full((BATCH,), 10 * t, dtype=torch.float32),
            class_labels=torch.as_tensor(label),
        ).sample
    return out.numpy().transpose(0, 2, 3, 1)


def theirs(guider, x, step):
    """What diffusers' loop does with a guider in one step; also all predictions."""
    guider.set_state(step, STEPS, torch.tensor(0))
    batches = guider.prepare_inputs({"label": (COND, NULL)})
    for batch in batches:
        guider.prepare_models(their_network())
        out = evaluate(x, 1 - step / STEPS, batch.label)
        batch.noise_pred = torch.from_numpy(out)
        guider.cleanup_models(their_network())
    return guider(batches).pred.numpy(), [batch.noise_pred for batch in batches]


def forward(x, t, label, **taps):
    params = jax.tree.map(jnp.asarray, our_params())
    time = jnp.full(len(x), t, jnp.float32)
    return models.Predictor(CONFIG)(params, x, time, label, **taps)


def ours(transform):
    """(x, t) -> guided prediction, compiled once."""
    guide = jg.guide(forward, transform, kind="noise", depth=CONFIG.depth)
    conds = {"null": jnp.asarray(NULL, jnp.int32)}

    @jax.jit
    def run(x, t):
        label = jnp.asarray(COND, jnp.int32)
        return guide(x, t, label, guide.init(x), conds=conds)[0]

    return run


def window(start, stop):
    """Noise times of the steps that diffusers guides: strictly between two numbers."""
    first, last = int(start * STEPS) + 1, int(stop * STEPS) - 1
    return dict(t_lo=1 - (last + 0.5) / STEPS, t_hi=1 - (first - 0.5) / STEPS)


def agree(guider, transform):
    """Every step, each with its own random state; the error is relative."""
    run, live = ours(transform), 0
    for step in range(STEPS):
        x = state(step)
        expected, predictions = theirs(guider, x, step)
        live += len(predictions) == 3
        actual = np.asarray(run(x, np.float32(1 - step / STEPS)))
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error < 1e-5, (step, error)
        print(f"relative error {error:.1e}")
    assert 0 < live < STEPS


def skip(indices, **parts):
    return hooks.LayerSkipConfig(indices=indices, fqn="transformer_blocks", **parts)


CASES = [
    (4.0, 2.8, (0.01, 0.4), [2]),
    (1.5, 0.7, (0.2, 1.0), [0, 3]),
    (2.0, -1.0, (0.0, 0.71), [1, 2]),
]
WHOLE, STEP = (0.0, 1.0), 4


def slg_guider(scale, weight, inside, layers, **parts):
    return guiders.SkipLayerGuidance(
        guidance_scale=scale,
        skip_layer_guidance_scale=weight,
        skip_layer_guidance_start=inside[0],
        skip_layer_guidance_stop=inside[1],
        skip_layer_config=skip(layers, **parts),
    )


def pag_guider(scale, weight, inside, layers):
    scores = dict(skip_attention=False, skip_attention_scores=True, skip_ff=False)
    return guiders.PerturbedAttentionGuidance(
        guidance_scale=scale,
        perturbed_guidance_scale=weight,
        perturbed_guidance_start=inside[0],
        perturbed_guidance_stop=inside[1],
        perturbed_guidance_config=skip(layers, **scores),
    )


both = pytest.mark.parametrize(
    ("guider", "term"), [(slg_guider, jg.stg), (pag_guider, jg.pag)], ids=["slg", "pag"]
)


def turned():
    """Every case with both guiders; by default the first with one."""
    for index, case in enumerate(CASES):
        for turn, pair in enumerate(((slg_guider, jg.stg), (pag_guider, jg.pag))):
            marks = [] if turn == index == 0 else [pytest.mark.exhaustive]
            name = ("slg", "pag")[turn]
            yield pytest.param(*case, *pair, marks=marks, id=f"{name}-{index}")


@pytest.mark.parametrize(
    ("scale", "weight", "inside", "layers", "guider", "term"), turned()
)
def test_skipped_layers_and_attention_beside_cfg(
    guider, term, scale, weight, inside, layers
):
    part = term(weight, layers=tuple(layers), **window(*inside))
    agree(guider(scale, weight, inside, layers), jg.chain(jg.cfg(scale), part))


def at_step(transform, step=STEP):
    """Ours where the next three tests compare."""
    return np.asarray(ours(transform)(state(0), np.float32(1 - step / STEPS)))


def assert_near(actual, expected):
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    print(f"relative error {error:.1e}")
    assert error < 1e-5


def assert_far(actual, expected, share):
    assert np.abs(actual - expected).max() > share * np.abs(expected).max()


@pytest.mark.parametrize("steps", [10, 20, 28, 50, 250])
def test_the_default_window_of_slg_has_one_step_more_than_theirs(steps):
    """Ours is half-open in noise time, theirs open at both ends in steps."""
    guider, found = guiders.SkipLayerGuidance(skip_layer_config=skip([2])), []
    for step in range(steps):
        guider.set_state(step, steps, torch.tensor(0))
        found += [step] * (guider.num_conditions == 3)
    (slg,) = [paper for paper in guidance.PAPERS if paper.name == "slg"]
    ours = eval(slg.call, vars(jg))
    live = [step for step in range(steps) if ours.live(1 - step / steps)]
    assert live == [*found, found[-1] + 1]
    assert guider.skip_layer_guidance_scale == ours.weights[0].value


@both
def test_without_cfg_theirs_is_cfg_of_its_scale(guider, term):
    """The perturbed branch is evaluated for the null condition, and not perturbed."""
    expected, _ = theirs(guider(1.0, 2.0, WHOLE, [2]), state(0), STEP)
    assert_near(at_step(jg.cfg(2.0)), expected)
    assert_far(at_step(term(2.0, layers=2)), expected, 0.1)


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_theirs_puts_the_identity_where_ours_leaves_a_part_out(part):
    """Inside the residual branch: gate * normalised tokens, where ours adds nothing."""
    parts = dict(skip_attention=part == "attention", skip_ff=part == "mlp")
    expected, predictions = theirs(
        slg_guider(2.0, 1.0, WHOLE, [2], **parts), state(0), STEP
    )
    assert len(predictions) == 3
    transform = jg.chain(jg.cfg(2.0), jg.stg(1.0, layers=2, skip=part))
    assert_far(at_step(transform), expected, 0.01)


@pytest.mark.parametrize("guider", ["skip_layer", "auto"])
def test_the_short_form_for_layers_fails_there(guider):
    if guider == "auto":
        made = guiders.AutoGuidance(auto_guidance_layers=[2], dropout=1.0)
    else:
        options = dict(skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0)
        made = guiders.SkipLayerGuidance(skip_layer_guidance_layers=[2], **options)
    with pytest.raises(TypeError):
        theirs(made, state(0), STEP)


def test_their_autoguidance_is_cfg_against_a_network_without_layers():
    """The weak branch has the null condition too, where the paper keeps the label."""
    guider = guiders.AutoGuidance(3.0, auto_guidance_config=skip([1]))
    expected, (raw, _) = theirs(guider, state(0), STEP)
    shortened = jg.stg(0.0, layers=1).away[0]
    null = dataclasses.replace(shortened, cond="null")
    assert_near(at_step(jg.contrast(3.0, null, neutral=1.0)), expected)
    paper = at_step(jg.contrast(3.0, shortened, neutral=1.0))
    assert_far(paper, expected, 0.1)
    assert_far(paper, raw.numpy(), 0.1)


# SEG.


def seg_guider():
    return guiders.SmoothedEnergyGuidance(
        guidance_scale=2.0,
        seg_guidance_scale=3.0,
        seg_guidance_start=0.0,
        seg_guidance_stop=1.0,
        seg_guidance_config=seg_config(),
    )


def test_their_smoothed_energy_guidance_never_applies():
    expected, (raw, _, smoothed) = theirs(seg_guider(), state(0), STEP)
    np.testing.assert_array_equal(raw, smoothed)
    assert_near(at_step(jg.cfg(2.0)), expected)
    assert_far(
        at_step(jg.chain(jg.cfg(2.0), jg.seg(3.0, layers="1-2"))), expected, 0.01
    )


# Which of the two blurs a number means is exchanged there, see the next test.
@pytest.mark.parametrize(("their_sigma", "sigma"), [(1.0, math.inf), (1e7, 1e7)])
def test_seg_is_theirs_once_its_hook_is_set_by_hand(their_sigma, sigma):
    """The layers' own hook, and the guider's own sum of the three predictions."""
    guider = seg_guider()
    _, (raw, null, _) = theirs(guider, state(0), STEP)
    with torch.no_grad():
        seg_utils._apply_smoothed_energy_guidance_hook(
            their_network(), seg_config(), their_sigma, name="by hand"
        )
        smoothed = evaluate(state(0), 1 - STEP / STEPS, COND)
        hooks.HookRegistry.check_if_exists_or_initialize(their_network()).remove_hook(
            "by hand", True
        )
    assert_far(smoothed, raw.numpy(), 0.01)
    np.testing.assert_array_equal(evaluate(state(0), 1 - STEP / STEPS, COND), raw)
    expected = guider.forward(raw, null, torch.from_numpy(smoothed)).pred.numpy()
    part = jg.seg(3.0, layers="1-2", sigma=sigma)
    assert_near(at_step(jg.chain(jg.cfg(2.0), part)), expected)


def test_their_blur_has_its_two_cases_exchanged():
    """A finite sigma is the mean; an infinite one is the Gaussian of ours."""
    query = np.random.default_rng(0).standard_normal((1, 36, 3), np.float32)

    def blurred(sigma, threshold):
        taps = 7  # ceil(6 sigma) made odd
        return seg_utils._gaussian_blur_2d(
            torch.tensor(query), taps, sigma, threshold
        ).numpy()

    mean = np.broadcast_to(query.mean(axis=1, keepdims=True), query.shape)
    np.testing.assert_allclose(blurred(1.0, 9999.0), mean, atol=1e-6)
    grid = jnp.asarray(query).reshape(1, 6, 6, 3)
    gauss = jg.guidance._blur.blur(grid, 1.0, (1, 2)).reshape(query.shape)
    np.testing.assert_allclose(blurred(1.0, 0.5), gauss, atol=1e-6)
