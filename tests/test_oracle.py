"""What a mixture may be made of; what it predicts is tested by all that use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide.errors import InputError
from jaxguide.oracle import GaussianMixture

FAST_COMPILE = True
MEANS, STDS = np.zeros((2, 3), np.float32), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((MEANS, STDS, (0, 1, 2)), r"as many stds, means, labels.*\[2, 2, 3\]"),
        ((MEANS, np.ones(3), (0, 1)), r"got \[3, 2, 2\]"),
        ((MEANS, STDS, (0, 1), np.ones(4)), r"got \[2, 2, 2, 4\]"),
        ((MEANS, np.array([1.0, 0.0]), (0, 1)), "finite stds > 0"),
        ((MEANS, np.array([1.0, np.nan]), (0, 1)), "finite stds > 0"),
        ((MEANS, STDS, (0, -1)), "labels >= 0"),
    ],
)
def test_components_that_do_not_fit_are_refused(arguments, match):
    with pytest.raises(InputError, match=f"GaussianMixture: need .*{match}"):
        GaussianMixture(*arguments)


def test_several_mixtures_may_be_stacked_and_mapped_over():
    one = GaussianMixture(jnp.asarray(MEANS), jnp.asarray(STDS), (0, 1))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), one)
    assert jax.vmap(lambda model: model.stds.sum())(stacked).tolist() == [2.0] * 4
