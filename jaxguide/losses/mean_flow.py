"""MeanFlow: a network learns the average velocity over a stretch of time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.losses import rows
from jaxguide.losses.base import (
    Batch,
    Noisy,
    Predict,
    add_change,
    corrupt_at,
    squared_error,
)
from jaxguide.losses.checks import (
    check_common,
    check_not_negative,
    check_share,
    check_window,
)
from jaxguide.losses.draws import Draws, TimeSampling, draws, logit_normal_t

_SMALL = 1e-3  # keeps the weight of a perfect sample finite


def mean_flow(
    predict: Predict,
    batch: Batch,
    key: Array | Draws,
    *,
    path: paths.Path,
    omega: float = 1.0,
    kappa: float = 0.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
    flow_ratio: float = 0.75,
    power: float = 1.0,
    label_drop: float = 0.1,
    null_label: int,
    t_sampling: TimeSampling | None = None,
) -> Array:
    """MeanFlow with classifier-free guidance inside its target, per sample.

        v    = omega velocity + kappa u(x, t, c, 0)
               + (1 - omega - kappa) u(x, t, no class, 0)
        loss = |u - sg(v - (t - r) du/dt)|^2 / sg(error + c)^power

    where u = predict(x, t, c, t - r) is the average of the velocity from r to t and
    du/dt its derivative along v. At r = t the optimum is classifier-free guidance of
    scale omega / (1 - kappa). One step takes noise to data:
    `x - predict(x, 1, c, duration=1)`.

    Args:
        predict: `(x, t, label, duration=) -> velocity`, x [B, H, W, C], duration [B].
        batch: `(x0, label)`: [B, H, W, C], about unit variance, and int32 [B].
        key: PRNG key of this step, or the draws of this part of a batch.
        path: how data turns into noise.
        omega: > 0, weight of the data; 1 with kappa 0 is unguided.
        kappa: in [0, 1), weight of the network's own prediction.
        t_lo, t_hi: noise times [t_lo, t_hi) that are guided.
        flow_ratio: probability in [0, 1] that r = t. Above 0.5, the derivative is
            taken only of the most other samples that there can be; see `rows.most`.
        power: of the adaptive weight; 0 is the squared error.
        label_drop: probability in [0, 1] that a label becomes `null_label`; such a
            sample is not guided.
        null_label: the label that means "no class".
        t_sampling: noise times from draws; None is `logit_normal_t(-0.4, 1.0)`.

    Returns:
        float32 [B].

    Raises:
        InputError: if a probability, `omega` or `kappa` is out of range.

    Source: Geng et al. 2025, arXiv:2505.13447, Eqs. 8 to 10, 20 and 22.
    Differs from the source: the error is a mean over pixels, there a sum, so that
        c = 0.001 counts for more. Where r = t, t is one draw, there the larger of two.
    """
    t_sampling = t_sampling or logit_normal_t(-0.4, 1.0)
    named = {"label_drop": label_drop, "null_label": null_label}
    check_common("mean_flow", batch, path, t_sampling=t_sampling, **named)
    check_window("mean_flow", t_lo, t_hi)
    check_not_negative("mean_flow", "power", power)
    _check(omega, kappa, flow_ratio)
    x0, label = batch
    noising, dropping, ending = draws(key, len(label)).split(3)
    t, duration, moving, around = _stretch(noising, ending, t_sampling, flow_ratio)
    noisy = corrupt_at(x0, t, around, path=path)
    dropped = dropping.uniform() < label_drop
    shown = jnp.where(dropped, jnp.asarray(null_label, label.dtype), label)
    change = _change(predict, noisy, label, null_label, omega, kappa)
    guided = jnp.where(noisy.inside(t_lo, t_hi) & ~dropped, 1.0, 0.0)
    on = float(omega != 1 or kappa != 0)
    velocity = add_change(noisy.target("velocity"), guided, change, on=on)

    here = (noisy.x, t, duration, shown, velocity)
    if few_move(flow_ratio):
        u = predict(noisy.x, t, shown, duration=duration)
        slope = rows.on_rows(lambda *few: _along(predict, *few)[1], moving, *here)
    else:
        u, slope = _along(predict, *here)
    target = lax.stop_gradient(velocity - paths.expand(duration, u) * slope)
    error = squared_error(u, target)
    return error / lax.stop_gradient((error + _SMALL) ** power)


def _along(
    predict: Predict, x: Array, t: Array, duration: Array, label: Array, v: Array
) -> tuple[Array, Array]:
    """u, and its derivative along v, with r fixed."""

    def average(x: Array, t: Array, duration: Array) -> Array:
        return predict(x, t, label, duration=duration)

    ones = jnp.ones_like(t)
    return jax.jvp(average, (x, t, duration), (v, ones, ones))


def few_move(flow_ratio: float) -> bool:
    """Whether the derivative is taken of the samples with r < t alone, by two more
    passes over these, and not of all by one."""
    return flow_ratio > 0.5


def _stretch(
    noising: Draws, ending: Draws, t_sampling: TimeSampling, flow_ratio: float
) -> tuple[Array, Array, rows.Chosen, Draws]:
    """Times t [B], durations t - r [B], where these are > 0, and draws for noise."""
    at, around = noising.split(2)
    choosing, elsewhere = ending.split(2)
    one, other = t_sampling(at), t_sampling(elsewhere)
    moving = rows.lots(choosing).between(flow_ratio, 1)
    t = jnp.where(moving.mask, jnp.maximum(one, other), one)
    duration = jnp.where(moving.mask, jnp.abs(one - other), 0.0)
    return t, duration, moving, around


def _change(
    predict: Predict,
    noisy: Noisy,
    label: Array,
    null_label: int,
    omega: float,
    kappa: float,
):
    """What guidance adds to the velocity, as a function without arguments."""

    def change() -> Array:
        now = jnp.zeros_like(noisy.t)
        velocity = noisy.target("velocity")
        null = jnp.full_like(label, null_label)
        none = predict(noisy.x, noisy.t, null, duration=now)
        moved = (omega - 1) * velocity + (1 - omega - kappa) * none
        if kappa:
            moved = moved + kappa * predict(noisy.x, noisy.t, label, duration=now)
        return moved

    return change


def _check(omega: float, kappa: float, flow_ratio: float) -> None:
    check_share("mean_flow", "flow_ratio", flow_ratio)
    if not (0 < paths.as_number(omega) < jnp.inf and 0 <= paths.as_number(kappa) < 1):
        raise InputError(
            "mean_flow: need a finite omega > 0 and 0 <= kappa < 1, got "
            f"omega={omega!r}, kappa={kappa!r}. The scale is omega / (1 - kappa)."
        )
