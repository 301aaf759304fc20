"""DiT's loss: the noise, and by a likelihood bound the variance of a denoising step."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy import special

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.losses.base import (
    Batch,
    Noisy,
    Predict,
    corrupt,
    drop_labels,
    squared_error,
)
from jaxguide.losses.checks import check_common, check_not_negative
from jaxguide.losses.draws import Draws, TimeSampling, draws, uniform_t


def ddpm_hybrid(
    predict: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.DDPM,
    bound_weight: float = 0.001,
    label_drop: float = 0.1,
    null_label: int,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """The simple noise loss and the variational bound of the variance, per sample.

        loss = |noise - predicted|^2 + bound_weight * T * bound(sg(predicted), share)

    The bound, one of the T terms of the whole, trains the variance alone.

    Args:
        predict: `(x, t, label) -> (noise, share)`, both [B, H, W, C]; share -1 is the
            smallest possible variance, 1 the largest, as for `samplers.ddpm`.
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: the table; every noise time is one of its T.
        bound_weight: of the whole bound; 0.001 is published, times T = 1000.
        label_drop: probability in [0, 1] that a label becomes `null_label`.
        null_label: the label that means "no class".
        t_sampling: noise times from draws; rounded up to the next of the table.

    Returns:
        float32 [B].

    Raises:
        InputError: if `label_drop` is out of range, or the table has one step only.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, Eqs. 15 and 16; DiT
        @facebookresearch, diffusion/gaussian_diffusion.py (LossType.MSE).
    Differs from the source: the first step uses the exact normal distribution function
        where the code has an approximation by tanh.
    """
    check_common(
        "ddpm_hybrid", batch, path, label_drop=label_drop, null_label=null_label,
        t_sampling=t_sampling,
    )  # fmt: skip
    check_not_negative("ddpm_hybrid", "bound_weight", bound_weight)
    if not isinstance(path, paths.DDPM):
        raise InputError(f"ddpm_hybrid: need a paths.DDPM table, got path={path!r}.")
    steps = path.num_timesteps
    if steps < 2:
        raise InputError(
            f"ddpm_hybrid: need num_timesteps >= 2, got num_timesteps={steps!r}. "
            "1000 is published."
        )
    x0, label = batch
    noising, dropping = draws(key, len(label)).split(2)
    t_sampling = on_table(steps, t_sampling)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    label = drop_labels(dropping, label, label_drop, null_label)
    predicted, share = predict(noisy.x, noisy.t, label)
    bound = variational_bound(lax.stop_gradient(predicted), share, noisy, path)
    return squared_error(predicted, noisy.noise) + bound_weight * steps * bound


def on_table(steps: int, t_sampling: TimeSampling) -> TimeSampling:
    """Noise times 1/steps, 2/steps, ..., 1: those of `t_sampling`, rounded up."""

    def sample(draws: Draws) -> Array:
        return jnp.clip(jnp.ceil(t_sampling(draws) * steps), 1, steps) / steps

    return sample


def variational_bound(
    predicted: Array, share: Array, noisy: Noisy, path: paths.DDPM
) -> Array:
    """Divergence of the predicted denoising step from the true one, bits per pixel.

        KL( N(mean, small) || N(mean + gap, v) )
        log v = s log large + (1 - s) log small

    with gap = beta / (sigma sqrt(1 - beta)) (noise - predicted), s = (share + 1) / 2,
    large = beta and small the posterior's variance. The first step of the table counts
    what N(x0 + gap, v) gives to the bin of x0 among 256 grey values in [-1, 1].

    Args:
        predicted: noise [B, H, W, C].
        share: [B, H, W, C], see `ddpm_hybrid`.
        noisy: made at times of the table.
        path: the table.

    Returns:
        float32 [B], the mean over pixels.
    """
    step = jnp.round(noisy.t * path.num_timesteps).astype(jnp.int32) - 1
    predicted, share, noise, x0 = (
        a.astype(jnp.float32) for a in (predicted, share, noisy.noise, noisy.x0)
    )
    unit, log_small, log_large = (
        paths.expand(jnp.asarray(table)[step], noise) for table in _tables(path)
    )
    share = (share + 1) / 2
    log_v = share * log_large + (1 - share) * log_small
    gap = unit * (noise - predicted)
    ratio = jnp.exp(log_small - log_v)
    divergence = (log_v - log_small - 1 + ratio + jnp.square(gap) * jnp.exp(-log_v)) / 2
    first = -_log_bin(x0, x0 + gap, jnp.exp(-log_v / 2))
    nats = jnp.where(paths.expand(step, noise) == 0, first, divergence)
    return nats.mean(axis=tuple(range(1, nats.ndim))) / math.log(2)


def _log_bin(x0: Array, mean: Array, precision: Array) -> Array:
    """Log probability that N(mean, 1/precision^2) is in the bin of x0; the outermost
    bins reach to infinity."""
    lower = (x0 - mean - 1 / 255) * precision
    upper = (x0 - mean + 1 / 255) * precision
    # Both in the lower tail, where a difference of two numbers near 1 has no digits.
    flip = lower + upper > 0
    low, high = jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)
    inner = jnp.log(jnp.maximum(special.ndtr(high) - special.ndtr(low), 1e-12))
    inner = jnp.where(x0 > 0.999, special.log_ndtr(-lower), inner)
    return jnp.where(x0 < -0.999, special.log_ndtr(upper), inner)


@functools.lru_cache
def _tables(path: paths.DDPM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gap per unit of wrong noise, log of the smallest and of the largest variance;
    float32 [T]. The first step's own smallest is 0; as in DiT, the second's is used."""
    steps = path.num_timesteps
    node = path.node(np.arange(steps + 1) / steps)
    kept = node.alpha[1:] / node.alpha[:-1]
    beta = 1 - kept**2
    small = beta * (node.sigma[:-1] / node.sigma[1:]) ** 2
    small[0] = small[1]
    tables = (beta / (node.sigma[1:] * kept), np.log(small), np.log(beta))
    unit, log_small, log_large = (table.astype(np.float32) for table in tables)
    return unit, log_small, log_large
