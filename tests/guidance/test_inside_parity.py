"""Skip-layer and perturbed-attention guidance against diffusers' guiders, run live.

One set of random weights in both libraries, whole guided predictions at every step of a
schedule. Where diffusers does something else than its papers, a test says what.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import models
from jaxguide.config_sampling import _Forward

torch = pytest.importorskip("torch", reason="parity needs torch")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers")
guiders = pytest.importorskip("diffusers.guiders", reason="parity needs the guiders")

from diffusers.hooks import LayerSkipConfig  # noqa: E402
from diffusers.hooks.smoothed_energy_guidance_utils import (  # noqa: E402
    _gaussian_blur_2d,
)

from tests import diffusers_dit  # noqa: E402

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
THEIRS = diffusers_dit.their_network(CONFIG, std=0.25)
OURS = jax.tree.map(jnp.asarray, diffusers_dit.our_params(THEIRS))
COND, NULL = np.array([3, 0]), np.array([5, 5])


def state(seed):
    shape = (BATCH, *CONFIG.image_shape)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def evaluate(x, t, label):
    """diffusers' network at noise time `t`, channels last."""
    with torch.no_grad():
        out = THEIRS(
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
        guider.prepare_models(THEIRS)
        out = evaluate(x, 1 - step / STEPS, batch.label)
        batch.noise_pred = torch.from_numpy(out)
        guider.cleanup_models(THEIRS)
    return guider(batches).pred.numpy(), [batch.noise_pred for batch in batches]


def forward(x, t, label, **taps):
    return _Forward(CONFIG)(OURS, x, jnp.full(len(x), t, jnp.float32), label, **taps)


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
    return LayerSkipConfig(indices=indices, fqn="transformer_blocks", **parts)


CASES = [
    (4.0, 2.8, (0.01, 0.4), [2]),
    (1.5, 0.7, (0.2, 1.0), [0, 3]),
    (2.0, -1.0, (0.0, 0.71), [1, 2]),
]


@pytest.mark.parametrize(("scale", "weight", "inside", "layers"), CASES)
def test_stg_is_skip_layer_guidance_beside_cfg(scale, weight, inside, layers):
    guider = guiders.SkipLayerGuidance(
        guidance_scale=scale,
        skip_layer_guidance_scale=weight,
        skip_layer_guidance_start=inside[0],
        skip_layer_guidance_stop=inside[1],
        skip_layer_config=skip(layers),
    )
    term = jg.stg(weight, layers=tuple(layers), **window(*inside))
    agree(guider, jg.chain(jg.cfg(scale), term))


@pytest.mark.parametrize(("scale", "weight", "inside", "layers"), CASES)
def test_pag_is_perturbed_attention_guidance_beside_cfg(scale, weight, inside, layers):
    guider = guiders.PerturbedAttentionGuidance(
        guidance_scale=scale,
        perturbed_guidance_scale=weight,
        perturbed_guidance_start=inside[0],
        perturbed_guidance_stop=inside[1],
        perturbed_guidance_config=skip(
            layers, skip_attention=False, skip_attention_scores=True, skip_ff=False
        ),
    )
    term = jg.pag(weight, layers=tuple(layers), **window(*inside))
    agree(guider, jg.chain(jg.cfg(scale), term))


@pytest.mark.parametrize("name", ["SkipLayerGuidance", "PerturbedAttentionGuidance"])
def test_without_cfg_theirs_evaluates_the_null_condition_instead(name):
    prefix = {"SkipLayerGuidance": "skip_layer", "PerturbedAttentionGuidance": ""}[name]
    names = {
        "skip_layer": ("skip_layer_guidance", "skip_layer_config"),
        "": ("perturbed_guidance", "perturbed_guidance_config"),
    }[prefix]
    parts = {} if prefix else dict(skip_attention=False, skip_attention_scores=True)
    if not prefix:
        parts["skip_ff"] = False
    options = {f"{names[0]}_start": 0.0, f"{names[0]}_stop": 1.0}
    options |= {f"{names[0]}_scale": 2.0, names[1]: skip([2], **parts)}
    guider = getattr(guiders, name)(guidance_scale=1.0, **options)
    x, step = state(0), 4
    expected, _ = theirs(guider, x, step)
    raw, null = (evaluate(x, 1 - step / STEPS, label) for label in (COND, NULL))
    np.testing.assert_allclose(expected, null + 2.0 * (raw - null), atol=1e-4)
    term = jg.stg(2.0, layers=2) if prefix else jg.pag(2.0, layers=2)
    actual = ours(term)(x, np.float32(1 - step / STEPS))
    assert np.abs(actual - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_theirs_puts_the_identity_where_ours_leaves_a_part_out(part):
    """Inside the residual branch: gate * normalised tokens, where ours adds nothing."""
    guider = guiders.SkipLayerGuidance(
        guidance_scale=2.0,
        skip_layer_guidance_scale=1.0,
        skip_layer_guidance_start=0.0,
        skip_layer_guidance_stop=1.0,
        skip_layer_config=skip(
            [2], skip_attention=part == "attention", skip_ff=part == "mlp"
        ),
    )
    x, step = state(0), 4
    expected, predictions = theirs(guider, x, step)
    assert len(predictions) == 3
    transform = jg.chain(jg.cfg(2.0), jg.stg(1.0, layers=2, skip=part))
    actual = ours(transform)(x, np.float32(1 - step / STEPS))
    assert np.abs(actual - expected).max() > 0.01 * np.abs(expected).max()


def test_their_smoothed_energy_guidance_never_applies():
    config = guiders.smoothed_energy_guidance.SmoothedEnergyGuidanceConfig
    guider = guiders.SmoothedEnergyGuidance(
        guidance_scale=2.0,
        seg_guidance_scale=3.0,
        seg_guidance_start=0.0,
        seg_guidance_stop=1.0,
        seg_guidance_config=config(indices=[1, 2], fqn="transformer_blocks"),
    )
    x, step = state(0), 4
    expected, (raw, null, smoothed) = theirs(guider, x, step)
    np.testing.assert_array_equal(raw, smoothed)
    t = np.float32(1 - step / STEPS)
    np.testing.assert_allclose(ours(jg.cfg(2.0))(x, t), expected, rtol=1e-4, atol=1e-4)
    transform = jg.chain(jg.cfg(2.0), jg.seg(3.0, layers="1-2"))
    actual = ours(transform)(x, t)
    assert np.abs(actual - expected).max() > 0.01 * np.abs(expected).max()


def test_their_blur_has_its_two_cases_exchanged():
    """A finite sigma is the mean; an infinite one is the Gaussian of ours."""
    query = np.random.default_rng(0).standard_normal((1, 36, 3), np.float32)

    def blurred(sigma, threshold):
        taps = 7  # ceil(6 sigma) made odd
        return _gaussian_blur_2d(torch.tensor(query), taps, sigma, threshold).numpy()

    mean = np.broadcast_to(query.mean(axis=1, keepdims=True), query.shape)
    np.testing.assert_allclose(blurred(1.0, 9999.0), mean, atol=1e-6)
    grid = jnp.asarray(query).reshape(1, 6, 6, 3)
    gauss = jg.guidance.blur.blur(grid, 1.0, (1, 2)).reshape(query.shape)
    np.testing.assert_allclose(blurred(1.0, 0.5), gauss, atol=1e-6)
