"""Flow matching, and the simple DDPM loss: squared error at random noise times."""

from __future__ import annotations

from jax import Array

from jaxguide import paths
from jaxguide.losses.base import (
    Batch,
    Predict,
    check_weighting,
    corrupt,
    drop_labels,
    kind_error,
)
from jaxguide.losses.checks import check_common
from jaxguide.losses.draws import Draws, TimeSampling, draws, uniform_t


def flow_matching(
    predict: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    kind: str = "velocity",
    weighting: str = "none",
    label_drop: float = 0.1,
    null_label: int,
    t_sampling: TimeSampling = uniform_t,
) -> Array:
    """Squared error of a prediction of `kind` at random noise times, per sample.

        loss_i = weight(t) mean over pixels of (predict(x, t, label) - target)^2

    With `path=paths.Linear()` and `kind="velocity"` this is rectified flow; with
    `kind="noise"` on a variance-preserving path it is the simple DDPM loss, and
    `kind="score"` has the same value: its error counts sigma(t)^2 times.

    Args:
        predict: `(x, t, label) -> prediction`, x [B, H, W, C], t [B], label int32 [B].
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: how data turns into noise.
        kind: what the network predicts; one of `paths.KINDS`.
        weighting: for noise and score networks, with w = alpha sigma' - sigma alpha':
            "none" is 1 on the noise; "velocity" (w / alpha)^2, which makes it the error
            of the velocity; "likelihood" w / (alpha sigma), SiT's bound. The last two
            grow without limit at an end of time: there take times inside, such as
            `logit_normal_t()`.
        label_drop: probability in [0, 1] that a label becomes `null_label`;
            above 0 the network also learns to predict without a class.
        null_label: the label that means "no class".
        t_sampling: noise times from draws.

    Returns:
        float32 [B].

    Raises:
        InputError: if a number, a name, the batch or the prediction's shape is wrong.

    Source: Lipman et al. 2023, arXiv:2210.02747; Ho & Salimans 2022,
        arXiv:2207.12598 (dropping the label); weightings: Ma et al. 2024, SiT,
        arXiv:2401.08740, read against willisma/SiT @947f95b, transport/.
    """
    check_common(
        "flow_matching", batch, path, kind=kind, label_drop=label_drop,
        null_label=null_label, t_sampling=t_sampling,
    )  # fmt: skip
    check_weighting("flow_matching", kind, weighting)
    x0, label = batch
    noising, dropping = draws(key, len(label)).split(2)
    noisy = corrupt(x0, noising, path=path, t_sampling=t_sampling)
    label = drop_labels(dropping, label, label_drop, null_label)
    prediction = predict(noisy.x, noisy.t, label)
    return kind_error(kind, prediction, noisy.target(kind), noisy.node, weighting)
