"""Self-Guidance and S2 against the sampling loops of their authors, in float64 numpy.

The loops are written from what the published scripts (Self-Guidance) and Algorithm 1
(S2, which has no script) do, step by step: raw network outputs of a stacked batch,
timesteps of 0 to 1000, the memory filled at every step, the scheduler's own update.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from tests import transforms as tf
from tests.contract.common import rest
from tests.guidance.test_oracle import flat, kept_blocks

FAST_COMPILE = True
MAIN = tf.mixture()
MAIN64 = tf.in_float64(MAIN)
LABELS = {name: np.asarray(label) for name, label in tf.labels().items()}
BATCHED = ("null", "cond", "other")  # "other" stands where the scripts have PAG


def self_guidance(network, update, x, timesteps, settings):
    """The block of the Self-Guidance repository in the pipelines of SD, SD3, FLUX and
    CogVideoX. Mochi's is the same on a reversed schedule, where t + 10 is less noisy:
    the opposite of the paper."""
    carry = None
    for step, t in enumerate(timesteps):
        out = network(x, t, step)
        if settings["type"] == "sg":
            reference = network(x, np.clip(t + 10, 0, 1000), step)
        else:
            late = carry is not None and t < 500
            reference, carry = (carry if late else out), out
        null, cond, pag = np.split(out, 3)
        change = cond - np.split(reference, 3)[1]
        if settings["cfg"] is None:
            guided = cond + settings["scale"] * change
        else:
            guided = null + settings["cfg"] * (cond - null) + settings["scale"] * change
        guided = guided + settings["pag"] * (cond - pag)
        if settings["rescale"]:
            std = cond.std(1, keepdims=True) / guided.std(1, keepdims=True)
            share = settings["rescale"]
            guided = share * (guided * std) + (1 - share) * guided
        x = update(x, guided, step)
    return x


def ours(settings, t_hi):
    """The same guidance as a chain."""
    if settings["type"] == "sg":
        term = jg.sg(settings["scale"], shift=0.01)
    else:
        term = jg.sg_prev(settings["scale"], t_hi=t_hi)
    parts = [] if settings["cfg"] is None else [jg.cfg(settings["cfg"])]
    parts += [term, jg.contrast(settings["pag"], jg.Branch(cond="other"))]
    return jg.chain(*parts, jg.rescale(settings["rescale"]))


def sampled(settings, kind, path, grid, sampler, t_hi=0.5):
    probe = tf.oracle_probe(MAIN, kind, path)
    with jax.disable_jit():
        out = tf.sample(ours(settings, t_hi), probe, probe, grid, sampler)
    return flat(out), probe.evaluations()


def check(found, loop, settings):
    """Near the loop, and far from the loop without Self-Guidance."""
    want = loop(settings)
    assert np.abs(want - loop(settings | {"scale": 0.0})).max() > 0.02
    error = np.abs(found - want).max() / np.abs(want).max()
    print(f"relative error {error:.1e}")
    assert error < 2e-5


SETTINGS = [
    dict(type="sg", scale=3.0, cfg=7.5, pag=0.7, rescale=0.0),
    dict(type="sg_prev", scale=3.0, cfg=7.5, pag=0.7, rescale=0.0),
    dict(type="sg", scale=1.0, cfg=None, pag=0.0, rescale=0.0),
    dict(type="sg_prev", scale=0.7, cfg=None, pag=0.3, rescale=0.5),
]


def name(settings):
    return "-".join(str(value) for value in settings.values())


def flow_loop(settings, sigmas):
    """SD3 and FLUX: velocities, flow-matching Euler, timesteps after the shift."""

    def network(x, t, step):
        del step
        asked = [MAIN64.velocity(x, t / 1000, LABELS[one]) for one in BATCHED]
        return np.concatenate(asked)

    def update(x, guided, step):
        return x + (sigmas[step + 1] - sigmas[step]) * guided

    noise = flat(tf.start())
    return self_guidance(network, update, noise, 1000 * sigmas[:-1], settings)


@pytest.mark.parametrize(
    "shift", [pytest.param(1.0, marks=pytest.mark.exhaustive), 3.0]
)
@pytest.mark.parametrize("settings", SETTINGS, ids=name)
def test_the_loop_of_the_flow_pipelines(settings, shift):
    """Without a shift a step begins at t = 500, where SG-prev is still off."""
    even = np.linspace(1, 0, 11)
    sigmas = shift * even / (1 + (shift - 1) * even)
    assert (shift == 1) == (0.5 in sigmas)
    found, _ = sampled(settings, "velocity", paths.Linear(), sigmas, jg.euler())
    check(found, lambda settings: flow_loop(settings, sigmas), settings)


def discrete_loop(settings, timesteps):
    """SD 1.4: noise predictions, Euler steps in sigma on the rescaled state."""
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = np.sqrt((1 - alphas) / alphas)
    sigmas = np.append(levels[timesteps], 0.0)

    def predict(scaled, t, label):
        """The mixture knows the linear path: the same state, in other units."""
        alpha = np.sqrt(alphas[int(t)])
        sigma = np.sqrt(1 - alpha**2)
        both = alpha + sigma
        return MAIN64.moments(scaled / both, sigma / both, label)[1]

    def network(x, t, step):
        # A shifted call, too, gets the input scaled for the level of its step.
        scaled = x / np.sqrt(sigmas[step] ** 2 + 1)
        return np.concatenate([predict(scaled, t, LABELS[one]) for one in BATCHED])

    def update(x, guided, step):
        return x + (sigmas[step + 1] - sigmas[step]) * guided

    begin = flat(tf.start()) * np.sqrt(1 - alphas[timesteps[0]])
    begin = begin * np.sqrt(sigmas[0] ** 2 + 1)
    return self_guidance(network, update, begin, timesteps, settings)


# The same settings as above; with guidance of a label and without in the default run.
@pytest.mark.parametrize(
    "settings", [*SETTINGS[1:3], *rest(SETTINGS[0], SETTINGS[3])], ids=name
)
def test_the_loop_of_the_noise_pipelines(settings):
    """Timestep i of the table is noise time (i + 1) / 1000, so t < 500 is < 0.501."""
    timesteps = np.array([979, 859, 739, 619, 500, 499, 379, 259, 139, 19])
    grid = np.append((timesteps + 1) / 1000, 0.0)
    found, _ = sampled(settings, "noise", paths.DDPM(), grid, jg.ddim(), t_hi=0.501)
    check(found, lambda settings: discrete_loop(settings, timesteps), settings)


def test_only_the_conditional_branch_is_evaluated_again():
    """The scripts evaluate the whole batch twice, six calls where four are needed."""
    grid = np.array([0.8, 0.6])
    for settings, calls in zip(SETTINGS[:2], (4, 3), strict=True):
        _, found = sampled(settings, "velocity", paths.Linear(), grid, jg.euler())
        assert found == calls


# S2.


def s2_loop(grid, masks, scale, weight, recentred=True):
    """Algorithm 1: CFG, less `weight` times a network with blocks left out.

    The appendix of the paper, and public ports, leave out the term that centres it.
    """
    x = grid[0] * flat(tf.start())
    for t, s, kept in zip(grid[:-1], grid[1:], masks, strict=True):
        cond, null = (MAIN64.velocity(x, t, LABELS[one]) for one in ("cond", "null"))
        guided = null + scale * (cond - null)
        if 0.1 - 1e-9 <= t < 0.9 - 1e-9:
            short = [
                MAIN64.velocity(x, t, LABELS["cond"], sum(np.delete(BLOCKS, one)))
                for one in kept
            ]
            guided = guided - weight * np.mean(short, axis=0)
            guided = guided + weight * cond if recentred else guided
        x = x + (s - t) * guided
    return x


BLOCKS = np.asarray(MAIN.blocks, np.float64)


@pytest.mark.parametrize("count", [1, 3])
def test_algorithm_1_of_s2(count):
    grid = np.linspace(1, 0, 11)
    probe = tf.oracle_probe(MAIN)
    guidance = jg.chain(jg.cfg(3.0), jg.s2(0.8, drop=0.3, num_masks=count))
    with jax.disable_jit():
        found = flat(tf.sample(guidance, probe, probe, grid))
    masks = kept_blocks(probe, grid)
    assert [len(kept) for kept in masks] == [0, 0] + [count] * 8
    assert all(len(one) == 4 and 0 in one for kept in masks for one in kept)
    want = s2_loop(grid, masks, 3.0, 0.8)
    assert np.abs(want - s2_loop(grid, masks, 3.0, 0.0)).max() > 0.02
    error = np.abs(found - want).max() / np.abs(want).max()
    print(f"relative error {error:.1e}")
    assert error < 2e-5
    assert np.abs(found - s2_loop(grid, masks, 3.0, 0.8, recentred=False)).max() > 0.1


def test_the_form_that_is_not_centred_lacks_its_weight_times_raw():
    """Its coefficients add up to 1 - weight: a constant prediction would shrink."""
    constant = jg.Network(lambda x, t, label, **taps: jnp.full_like(x, 2.0), depth=6)
    guidance = jg.chain(jg.cfg(3.0), jg.s2(0.25))
    with jax.disable_jit():
        out = jg.generate(
            constant, tf.start(), tf.labels()["cond"], grid=np.array([0.5, 0.4]),
            sampler=jg.euler(), guidance=guidance, conds=tf.labels(),
            key=jax.random.key(0),
        )  # fmt: skip
    guided = (flat(out) - 0.5 * flat(tf.start())) / -0.1
    np.testing.assert_allclose(guided, 2.0, rtol=1e-5)
    not_centred = 2.0 + 3.0 * 0.0 - 0.25 * 2.0
    np.testing.assert_allclose(guided - not_centred, 0.25 * 2.0, rtol=1e-4)
