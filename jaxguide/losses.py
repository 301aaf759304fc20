"""Training losses as pure functions `loss(predict, batch, key, ...) -> [B]`.

    t ~ t_sampling,  noise ~ N(0, I),  x = alpha(t) x0 + sigma(t) noise
    loss_i = mean over pixels of (predict(x, t, label) - target)^2

`predict(x, t, label)` is a network with its parameters already filled in; `x` is
[B, H, W, C], `t` [B] noise time in [0, 1] (1 = noise), `label` int32 [B].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxguide import paths

Predict = Callable[[Array, Array, Array], Array]
TimeSampling = Callable[[Array, tuple[int, ...]], Array]


def uniform_t(key: Array, shape: tuple[int, ...]) -> Array:
    """Noise times, uniform in (0, 1); float32 of `shape`."""
    return jax.random.uniform(key, shape, minval=1e-5, maxval=1 - 1e-5)


def logit_normal_t(mean: float = 0.0, std: float = 1.0) -> TimeSampling:
    """Noise times t = sigmoid(n), n ~ N(mean, std^2): more weight on the middle.

    Args:
        mean: of the logit; above 0 favours noisy times.
        std: of the logit, > 0.

    Returns:
        A function `(key, shape) -> t`.

    Raises:
        ValueError: if `std` is not positive.

    Source: Esser et al. 2024, arXiv:2403.03206, Sec. 3.1.
    """
    if not std > 0:
        raise ValueError(f"logit_normal_t: need std > 0, got std={std!r}. Use 1.0.")

    def sample(key: Array, shape: tuple[int, ...]) -> Array:
        logit = mean + std * jax.random.normal(key, shape)
        return jnp.clip(jax.nn.sigmoid(logit), 1e-5, 1 - 1e-5)

    return sample


def drop_labels(key: Array, label: Array, rate: float, null_label: int) -> Array:
    """Replaces each label by `null_label` with probability `rate`; int32 [B]."""
    dropped = jax.random.bernoulli(key, rate, label.shape)
    return jnp.where(dropped, jnp.asarray(null_label, label.dtype), label)


def flow_matching(
    predict: Predict,
    batch: tuple[Array, Array],
    key: Array,
    *,
    path: paths.Path,
    kind: str = "velocity",
    label_drop: float = 0.1,
    null_label: int,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """Squared error of a prediction of `kind` at random noise times, per sample.

    With `path=paths.Linear()` and `kind="velocity"` this is rectified flow; with
    `kind="noise"` on a variance-preserving path it is the simple DDPM loss.

    Args:
        predict: see the module docstring.
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step.
        path: how data turns into noise.
        kind: what the network predicts; one of `paths.KINDS`.
        label_drop: probability in [0, 1] that a label becomes `null_label`;
            above 0 the network also learns to predict without a class.
        null_label: the label that means "no class".
        t_sampling: `(key, shape) -> t`.

    Returns:
        float32 [B].

    Raises:
        ValueError: if `label_drop` or `kind` is out of range.

    Source: Lipman et al. 2023, arXiv:2210.02747; Ho & Salimans 2022,
        arXiv:2207.12598 (dropping the label).
    """
    if not 0 <= label_drop <= 1:
        raise ValueError(
            f"flow_matching: need 0 <= label_drop <= 1, got label_drop={label_drop!r}. "
            "0.1 is common."
        )
    x0, label = batch
    key_t, key_noise, key_drop = jax.random.split(key, 3)
    t = t_sampling(key_t, label.shape)
    noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
    node = path.node(t)
    label = drop_labels(key_drop, label, label_drop, null_label)
    prediction = predict(paths.corrupt(x0, noise, node), t, label)
    error = (prediction - paths.target(kind, x0, noise, node)).astype(jnp.float32)
    return jnp.square(error).mean(axis=tuple(range(1, error.ndim)))
