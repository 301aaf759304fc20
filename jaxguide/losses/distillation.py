"""Distillation of guidance: a network learns what a guided teacher predicts."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxguide import paths
from jaxguide.losses.base import Batch, Predict, corrupt, squared_error
from jaxguide.losses.checks import check_common, check_scales
from jaxguide.losses.draws import Draws, TimeSampling, draws, uniform_t


def cfg_distillation(
    predict: Predict,
    teacher: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    scales: tuple[float, float] = (1.0, 4.0),
    null_label: int,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """A student that takes the scale as an input learns guided predictions, per sample.

        s ~ U(scales),  none = teacher(x, t, no class)
        loss = |predict(x, t, c, s) - sg(none + s (teacher(x, t, c) - none))|^2

    Args:
        predict: `(x, t, label, scale=) -> prediction`, x [B, H, W, C], scale [B].
        teacher: `(x, t, label) -> prediction` of the same kind, with and without a
            class: a trained network, frozen. No gradient flows through it.
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: how data turns into noise.
        scales: range of s, both >= 1; 1 is unguided.
        null_label: the label that means "no class" to the teacher.
        t_sampling: noise times from draws.

    Returns:
        float32 [B].

    Raises:
        InputError: if a scale is out of range.

    Source: Meng et al. 2023, arXiv:2210.03142, Sec. 3.1 (the first of its two stages).
    Differs from the source: its w is s - 1; the error is that of the network's own
        kind of prediction at every noise time, there of the denoised image, weighted.
    """
    check_common(
        "cfg_distillation", batch, path, null_label=null_label, t_sampling=t_sampling
    )
    check_scales("cfg_distillation", scales)
    x0, label = batch
    noising, _, scaling = draws(key, len(label)).split(3)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    scale = scaling.uniform(*scales)
    none = teacher(noisy.x, noisy.t, jnp.full_like(label, null_label))
    change = teacher(noisy.x, noisy.t, label) - none
    guided = lax.stop_gradient(none + paths.expand(scale, none) * change)
    return squared_error(predict(noisy.x, noisy.t, label, scale=scale), guided)


class GuidedStates(NamedTuple):
    """What a guided sampler went through; `train.guided_trajectories` collects it.

    Attributes:
        x: noisy states [B, H, W, C].
        t: noise times [B].
        label: int32 [B].
        scale: of classifier-free guidance [B].
        prediction: the guided prediction at `x` [B, H, W, C].
    """

    x: Array
    t: Array
    label: Array
    scale: Array
    prediction: Array


def adapter_distillation(predict: Predict, states: GuidedStates) -> Array:
    """Adapters of a frozen network learn its guided predictions, per sample.

        loss = |predict(x, t, c, s) - guided|^2    x, guided on a guided trajectory

    Only the parameters of the adapters are trained; see `models.init_adapters`. States
    of the guided sampler itself take the place of noised data: they are what the
    adapted network will meet, and no data set is needed.

    Args:
        predict: `(x, t, label, scale=) -> prediction`, the network with its adapters.
        states: some of the collected states.

    Returns:
        float32 [B].

    Source: Jensen & Sadat 2025, Adapter Guidance Distillation, arXiv:2503.07274.
    Differs from the source: nothing known.
    """
    predicted = predict(states.x, states.t, states.label, scale=states.scale)
    return squared_error(predicted, states.prediction)
