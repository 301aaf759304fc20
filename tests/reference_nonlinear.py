"""Non-linear guidance once more, in float64 numpy, from the papers' formulas.

As `tests.reference`: shares no line with the library. States are flat, [B, 4]; as
images they are [B, 2 pixels, 2 channels].
"""

import math

import numpy as np

from tests.reference import cfg


def null(s):
    return s.v("null")


def denoised_of(s, velocity):
    return s.x - s.t * velocity


def velocity_of_denoised(s, denoised):
    return (s.x - denoised) / s.t


def noise_of(s, velocity):
    return s.x + (1 - s.t) * velocity


def velocity_of_noise(s, noise):
    return (noise - s.x) / (1 - s.t)


def rows(function, *arrays):
    """A function of one sample, over all."""
    return np.stack([function(*sample) for sample in zip(*arrays, strict=True)])


def length(row):
    return math.sqrt(sum(v * v for v in row))


def differences(s, inside):
    """Denoised raw - null of every step so far inside the window, oldest first."""
    before = [] if s.previous is None else differences(s.previous["scene"], inside)
    here = [denoised_of(s, s.raw) - denoised_of(s, null(s))] if inside(s.t) else []
    return [*before, *here]


def apg_direction(s, momentum, radius, parallel, inside):
    """Algorithm 1 of arXiv:2410.02416 on denoised predictions."""
    steps = differences(s, inside)
    ages = range(len(steps) - 1, -1, -1)
    average = sum(momentum**age * step for age, step in zip(ages, steps, strict=True))

    def one(average, raw):
        size = length(average)
        average = average * min(1.0, radius / size) if size else average
        unit = raw / length(raw)
        along = (average @ unit) * unit
        return average - along + parallel * along

    return rows(one, average, denoised_of(s, s.raw))


def apg(s, scale, momentum, radius, parallel, inside, base="toward"):
    if not inside(s.t):
        return s.raw
    step = apg_direction(s, momentum, radius, parallel, inside)
    raw, away = denoised_of(s, s.raw), denoised_of(s, null(s))
    guided = {
        "toward": raw + (scale - 1) * step,
        "away": away + scale * step,
        "full": raw + scale * step,
    }[base]
    return velocity_of_denoised(s, guided)


def apg_mix(s, scale, apg_scale, t_switch, momentum, radius):
    if s.t >= t_switch - 1e-7:
        return cfg(s, scale)
    return apg(s, apg_scale, momentum, radius, 0.0, lambda t: True)


def cfg_zero(s, scale, share=0.04):
    if s.t >= 1 - share:
        return np.zeros_like(s.raw)

    def one(raw, away):
        (best,), *_ = np.linalg.lstsq(away[:, None], raw, rcond=None)
        return best * away + scale * (raw - best * away)

    return rows(one, s.raw, null(s))


def tcfg(s, scale):
    def one(raw, away):
        _, _, basis = np.linalg.svd(np.stack([raw, away]), full_matrices=False)
        away = (away @ basis[0]) * basis[0]
        return away + scale * (raw - away)

    return rows(one, s.raw, null(s))


def adg(s, scale, inside=True):
    """The formula of the port, with the angle from its cosine."""
    if not inside:
        return s.raw

    def one(raw, away):
        angle = math.acos(raw @ away / (length(raw) * length(away)))
        turn = min((scale - 1) * angle, math.pi / 3)
        across = raw - (raw @ away) / (away @ away) * away
        return math.cos(turn) * raw + math.sin(turn) / math.sin(angle) * across

    guided = rows(one, denoised_of(s, s.raw), denoised_of(s, null(s)))
    return velocity_of_denoised(s, guided)


def mambo_g(s, scale, strength):
    def one(raw, away):
        ratio = length(raw - away) / length(away)
        scaled = 1 + (scale - 1) * math.exp(-strength * ratio)
        return away + scaled * (raw - away)

    return rows(one, s.raw, null(s))


def beta_cfg(s, scale, power, inside=True):
    """Beta(2, 2) density of noise time, by its closed form 6 p (1 - p)."""
    if not inside:
        return s.raw
    weight = scale * 6 * s.t * (1 - s.t)
    if not weight:
        return null(s)

    def one(raw, away):
        return away + weight * (raw - away) / length(raw - away) ** power

    guided = rows(one, noise_of(s, s.raw), noise_of(s, null(s)))
    return velocity_of_noise(s, guided)


def two_bands(x):
    """(high, low) of [B, 4] as two pixels of two channels.

    A mirrored border of two pixels a, b reads ..., a, b, a, b, ...: the binomial kernel
    gives both the mean. Halved and enlarged it stays the mean. The Fourier transform of
    two pixels has the same two bands.
    """
    pixels = x.reshape(-1, 2, 2)
    low = np.repeat(pixels.mean(axis=1, keepdims=True), 2, axis=1).reshape(x.shape)
    return x - low, low


def banded(s, high, low):
    fine, coarse = two_bands(s.raw - null(s))
    return s.raw + (high - 1) * fine + (low - 1) * coarse


def renorm(s, guided, weight, limit):
    def one(raw, guided):
        ratio = min(1.0, limit * length(raw) / length(guided))
        return guided * (1 - weight + weight * ratio)

    return rows(one, s.raw, guided)


def dynamic_threshold(s, guided, weight, percentile, limit):
    def one(value):
        level = max(limit, np.quantile(np.abs(value), percentile))
        squeezed = np.clip(value, -level, level) * limit / level
        return value + weight * (squeezed - value)

    return velocity_of_denoised(s, rows(one, denoised_of(s, guided)))


def first_channel(s, guided):
    keep = np.tile([True, False], 2)
    return np.where(keep, guided, s.raw)
