"""Model-Guidance: a network learns its own guided prediction, one evaluation per step.

    target' = target + w sg(teacher(x, t, c) - teacher(x, t, no class))    t in window
    loss    = |predict(x, t, c) - target'|^2

The teacher is the running average of the network itself.

Source: Tang et al. 2025, arXiv:2502.12154.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.losses import rows
from jaxguide.losses.base import (
    Batch,
    Noisy,
    Predict,
    add_change,
    corrupt,
    kind_error,
)
from jaxguide.losses.checks import (
    check_common,
    check_scales,
    check_share,
    check_window,
    traced,
)
from jaxguide.losses.draws import Draws, TimeSampling, draws, uniform_t
from jaxguide.losses.references import Reference, null_class


def _check_weight(weight: float | Array) -> None:
    """Raises InputError for a known weight outside [0, 1)."""
    known = not traced(weight) and jnp.ndim(weight) == 0
    if known and not 0 <= paths.as_number(weight) < 1:
        raise InputError(
            f"model_guidance: need 0 <= weight < 1, got weight={weight!r}. "
            "The learnt scale is 1 / (1 - weight); 0.45 is published."
        )


def model_guidance(
    predict: Predict,
    teacher: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    kind: str = "velocity",
    weight: float | Array = 0.45,
    t_lo: float = 0.0,
    t_hi: float = 0.75,
    label_drop: float = 0.1,
    null_label: int,
    reference: Reference | None = None,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """Model-Guidance with one fixed strength, per sample.

    The guide is the guided network itself, so what is learnt is not the weight:

        prediction = no class + (class - no class) / (1 - w)     classifier-free scale

    which is scale 1.82 at the published w = 0.45; at w >= 1 it grows for ever.

    Args:
        predict: `(x, t, label) -> prediction`, x [B, H, W, C], t [B], label int32 [B].
        teacher: the same with averaged parameters; no gradient flows through it.
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: how data turns into noise.
        kind: what the network predicts; one of `paths.KINDS`.
        weight: w in [0, 1); 0 is plain training. A traced number may change during
            training, and while it is 0 the teacher is not evaluated.
        t_lo, t_hi: noise times [t_lo, t_hi) that are guided.
        label_drop: probability in [0, 1] that a label becomes `null_label`; such a
            sample keeps its plain target.
        null_label: the label that means "no class".
        reference: what is pushed away from; None is `null_class(null_label)`.
            `other_class` and `mean_class` need no dropped labels.
        t_sampling: noise times from draws.

    Returns:
        float32 [B].

    Raises:
        InputError: if a number, a name, the batch or the prediction's shape is wrong.

    Source: Tang et al. 2025, arXiv:2502.12154, Eq. 17 to 20 and Algorithm 1.
    Differs from the source: the paper has no window and the algorithm uses the network
        itself as teacher; window and average are those of the text and the released
        code. The code's `mgw` is 1 + w. Labels are dropped one by one at random, there
        the last tenth of each batch. A first phase without guidance (100,000 steps
        there) is a weight that starts at 0.
    """
    check_common(
        "model_guidance", batch, path, kind=kind, label_drop=label_drop,
        null_label=null_label, t_sampling=t_sampling,
    )  # fmt: skip
    check_window("model_guidance", t_lo, t_hi)
    _check_weight(weight)
    x0, label = batch
    noising, dropping, referring = draws(key, len(label)).split(3)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    dropped = dropping.uniform() < label_drop
    away = reference or null_class(null_label)

    def change() -> Array:
        difference = teacher(noisy.x, noisy.t, label)
        return difference - away(teacher, noisy, label, referring)

    guided = noisy.inside(t_lo, t_hi) & ~dropped
    strength = jnp.where(guided, jnp.asarray(weight, jnp.float32), 0.0)
    target = add_change(noisy.target(kind), strength, change, on=weight)
    shown = jnp.where(dropped, jnp.asarray(null_label, label.dtype), label)
    prediction = predict(noisy.x, noisy.t, shown)
    return kind_error(kind, prediction, target, noisy.node, "none")


def scale_aware_model_guidance(
    predict: Predict,
    teacher: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    kind: str = "velocity",
    scales: tuple[float, float] = (1.0, 2.0),
    t_lo: float = 0.0,
    t_hi: float = 0.75,
    guided_share: float = 0.2,
    label_drop: float = 0.1,
    null_label: int,
    start: float | Array = 1.0,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """Model-Guidance of a network that takes the scale as an input, per sample.

        s ~ U(scales),  target' = target + (s - 1) sg(teacher(x, t, c, 1)
                                                      - teacher(x, t, no class, 0))

    The guide is the unguided half of the network, so the network at scale s learns
    classifier-free guidance of scale s exactly. Each sample is, at random, guided with
    scale s, without a class and with scale 0, or plain with scale 1.

    Args:
        predict: `(x, t, label, scale=) -> prediction`, scale [B].
        teacher: the same with averaged parameters; no gradient flows through it.
        batch, key, path, kind, t_lo, t_hi, t_sampling: as for `model_guidance`.
        scales: range of s, both >= 1; 1 is unguided.
        guided_share: probability of a guided sample, in [0, 1]. Of 32 samples on a
            device, 6 or 7 are guided at 0.2, and the teacher sees 7; see `rows.most`.
        label_drop: probability of a sample without a class, in [0, 1].
        null_label: the label that means "no class".
        start: 0 before guidance starts, 1 from then on; may be traced.

    Returns:
        float32 [B].

    Raises:
        InputError: if a probability or a scale is out of range.

    Source: Tang et al. 2025, arXiv:2502.12154, Eq. 21 and 22; shares of the batch as
        in the released code.
    Differs from the source: the paper's w is s - 1. The three kinds of samples lie at
        random places of the batch, evenly spread, there they are parts in a fixed
        order. The teacher runs on the most rows that can be guided, as it does there.
    """
    owner = "scale_aware_model_guidance"
    check_common(
        owner, batch, path, kind=kind, label_drop=label_drop, null_label=null_label,
        t_sampling=t_sampling,
    )  # fmt: skip
    check_window(owner, t_lo, t_hi)
    check_share(owner, "guided_share", guided_share)
    check_share(owner, "guided_share + label_drop", guided_share + label_drop)
    check_scales(owner, scales)
    x0, label = batch
    noising, choosing, scaling = draws(key, len(label)).split(3)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    lots = rows.lots(choosing)
    dropped = lots.between(0, label_drop).mask
    chosen = lots.between(label_drop, label_drop + guided_share)
    guided = chosen.mask & (jnp.asarray(start, jnp.float32) > 0)
    drawn = scaling.uniform(*scales)

    def difference(noisy: Noisy, label: Array) -> Array:
        ones, null = jnp.ones_like(noisy.t), jnp.full_like(label, null_label)
        away = teacher(noisy.x, noisy.t, null, scale=jnp.zeros_like(ones))
        return teacher(noisy.x, noisy.t, label, scale=ones) - away

    strength = jnp.where(guided & noisy.inside(t_lo, t_hi), drawn - 1, 0.0)
    change = functools.partial(rows.on_rows, difference, chosen, noisy, label)
    target = add_change(noisy.target(kind), strength, change, on=start)
    scale = jnp.where(guided, drawn, jnp.where(dropped, 0.0, 1.0))
    shown = jnp.where(dropped, jnp.asarray(null_label, label.dtype), label)
    prediction = predict(noisy.x, noisy.t, shown, scale=scale)
    return kind_error(kind, prediction, target, noisy.node, "none")
