"""What Model-Guidance pushes away from: the teacher without this class.

A reference is a function `(teacher, noisy, label, draws) -> prediction` [B, H, W, C].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxguide.errors import InputError
from jaxguide.losses.base import Noisy, Predict
from jaxguide.losses.draws import Draws
from jaxguide.paths import is_integer

Reference = Callable[[Predict, Noisy, Array, Draws], Array]


def null_class(null_label: int) -> Reference:
    """The prediction for "no class", as the paper and its code have it."""

    def predict(teacher: Predict, noisy: Noisy, label: Array, draws: Draws) -> Array:
        del draws
        return teacher(noisy.x, noisy.t, jnp.full_like(label, null_label))

    return predict


def other_class(num_classes: int) -> Reference:
    """The prediction for one random other class; no "no class" has to be learnt.

    With weight w and N classes of equal shares, what is learnt is guidance about the
    mean of all classes, stronger than with `null_class`:

        prediction = mean + (class - mean) / (1 - w N / (N - 1))     w < (N - 1) / N

    Args:
        num_classes: >= 2.

    Raises:
        InputError: if there is no other class.

    Source: the option `contrastive` of the authors' code of arXiv:2502.12154.
    """
    _check_classes("other_class", num_classes, 2)

    def predict(teacher: Predict, noisy: Noisy, label: Array, draws: Draws) -> Array:
        other = (label + draws.integers(1, num_classes)) % num_classes
        return teacher(noisy.x, noisy.t, other.astype(label.dtype))

    return predict


def mean_class(num_classes: int, count: int = 0) -> Reference:
    """The mean of the predictions for `count` random classes, or for all.

        reference = 1/N sum_i teacher(x, t, c_i)

    With all classes and weight w, what is learnt is `mean + (class - mean) / (1 - w)`.

    Args:
        num_classes: >= 1.
        count: classes N in the mean, drawn anew for every batch without repetition;
            0 takes all. Each is one more evaluation of the teacher.

    Raises:
        InputError: if `count` exceeds the number of classes.

    Source: Tang et al. 2025, arXiv:2502.12154, Eq. 23.
    Differs from the source: nothing; but the equation is an approximation. The exact
        law of total probability weights each class by its posterior p(c_i | x_t),
        which a network that predicts velocities does not give.
    """
    if not is_integer(count) or count < 0:
        raise InputError(
            f"mean_class: need an integer count >= 0, got count={count!r}. 0 takes all."
        )
    _check_classes("mean_class", num_classes, max(count, 1))
    count = count or num_classes

    def predict(teacher: Predict, noisy: Noisy, label: Array, draws: Draws) -> Array:
        order = jax.random.permutation(draws.shared, num_classes)[:count]

        def add(total: Array, one: Array) -> tuple[Array, None]:
            return total + teacher(noisy.x, noisy.t, jnp.full_like(label, one)), None

        total, _ = lax.scan(add, jnp.zeros_like(noisy.x), order.astype(label.dtype))
        return total / count

    return predict


def _check_classes(owner: str, num_classes: int, least: int) -> None:
    if not is_integer(num_classes) or num_classes < least:
        raise InputError(
            f"{owner}: need an integer num_classes >= {least}, got "
            f"num_classes={num_classes!r}. "
            "Use null_class, or fewer classes in the mean."
        )
