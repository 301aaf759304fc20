"""Guidance-free training: the guided network is implied by the plain loss."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from jaxguide import paths
from jaxguide.losses.base import Batch, Predict, corrupt, kind_error
from jaxguide.losses.checks import check_betas, check_common
from jaxguide.losses.draws import Draws, TimeSampling, draws, uniform_t


def gft(
    predict: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    kind: str = "velocity",
    betas: tuple[float, float] = (0.0, 1.0),
    label_drop: float = 0.1,
    null_label: int,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """Guidance-free training of a network that takes beta as an input, per sample.

        beta ~ U(betas)
        mix  = beta predict(x, t, c, beta) + (1 - beta) sg predict(x, t, no class, 1)
        loss = |mix - target|^2

    The mixture of guided and unguided is the plain conditional prediction, so

        predict(x, t, c, beta) = classifier-free guidance of scale 1 / beta

    with one evaluation per step.

    Args:
        predict: `(x, t, label, beta=) -> prediction`, x [B, H, W, C], beta [B].
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: how data turns into noise.
        kind: what the network predicts; one of `paths.KINDS`.
        betas: range of beta, inside [0, 1]; 1 is unguided.
        label_drop: probability in [0, 1] that a label becomes `null_label`; such a
            sample has beta 1.
        null_label: the label that means "no class".
        t_sampling: noise times from draws.

    Returns:
        float32 [B].

    Raises:
        InputError: if `label_drop`, `betas` or `kind` is out of range.

    Source: Chen et al. 2025, arXiv:2501.15420, Algorithm 1, for any kind of prediction;
        read against thu-ml/GFT (DiT).
    Differs from the source: a sample without a class has beta 1 throughout; the code
        gives the network 1 but mixes with the drawn beta, which makes the gradient of
        such samples smaller by that factor and leaves the optimum where it is.
    """
    check_common(
        "gft", batch, path, kind=kind, label_drop=label_drop, null_label=null_label,
        t_sampling=t_sampling,
    )  # fmt: skip
    check_betas("gft", betas)
    x0, label = batch
    noising, dropping, mixing = draws(key, len(label)).split(3)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    dropped = dropping.uniform() < label_drop
    beta = jnp.where(dropped, 1.0, mixing.uniform(*betas))
    null = jnp.full_like(label, null_label)
    shown = jnp.where(dropped, null, label)
    guided = predict(noisy.x, noisy.t, shown, beta=beta)
    away = predict(noisy.x, noisy.t, null, beta=jnp.ones_like(beta))
    share = paths.expand(beta, guided)
    mix = share * guided + (1 - share) * lax.stop_gradient(away)
    return kind_error(kind, mix, noisy.target(kind), noisy.node, "none")
