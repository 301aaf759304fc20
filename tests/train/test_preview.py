"""Sample grids from a network whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import models, paths, train

FAST_COMPILE = True
MODEL = models.DiTConfig(4, 1, 2, 8, 1, 1, num_classes=3)


@pytest.mark.parametrize("kind", ["velocity", "denoised"])
def test_a_fresh_network_leaves_what_its_zeros_mean(kind):
    params = jax.jit(models.init, static_argnums=0)(MODEL, jax.random.key(0))
    preview = train.Preview(
        MODEL, paths.Linear(), kind, (0, 1, 2), per_class=2, num_steps=3, seed=5
    )
    images = preview(params)
    assert images.shape == (3, 2, 4, 4, 1)
    noise = jax.random.normal(jax.random.key(5), (6, 4, 4, 1))
    # Velocity 0 never moves; "the image is 0" ends at 0.
    expected = noise if kind == "velocity" else jnp.zeros_like(noise)
    np.testing.assert_allclose(images.reshape(noise.shape), expected, atol=1e-5)
