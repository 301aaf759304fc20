"""The whole forward pass against diffusers' DiT, an independent implementation."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import models
from tests.lazy import Lazy, needs

torch, _ = needs("torch", "diffusers", reason="parity needs torch and diffusers")
diffusers_dit = Lazy("tests.diffusers_dit")

FAST_COMPILE = True
CLASSES = 7
CONFIG = models.DiTConfig(
    image_size=8,
    channels=4,
    patch=2,
    width=48,
    depth=3,
    heads=4,
    num_classes=CLASSES,
    learn_sigma=True,
    time_scale=1.0,
    downscale_freq_shift=1.0,
)


def test_forward_equals_diffusers():
    theirs = diffusers_dit.their_network(CONFIG, std=0.08)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 8, 4)).astype(np.float32)
    t, label = np.array([0, 417, 999]), np.array([0, 3, CLASSES])
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            timestep=torch.from_numpy(t),
            class_labels=torch.from_numpy(label),
        ).sample.numpy()
    actual = jax.jit(models.apply, static_argnums=0)(
        CONFIG,
        jax.tree.map(jnp.asarray, diffusers_dit.our_params(theirs)),
        jnp.asarray(x),
        jnp.asarray(t, jnp.float32),
        jnp.asarray(label, jnp.int32),
    )
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(actual, expected.transpose(0, 2, 3, 1), atol=1e-4)


def test_our_position_table_is_theirs():
    theirs = diffusers_dit.their_network(CONFIG).pos_embed.pos_embed.numpy()
    ours = models.init(CONFIG, jax.random.key(0))["pos_embed"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
