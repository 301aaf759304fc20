"""Guidance of predictions that are given, for laws in which no network matters."""

import numpy as np

import jaxguide as jg

T = 0.6
IMAGES = (3, 4, 6, 2)


def predictions(shape=IMAGES, seed=0, spread=0.6):
    """Raw and null predictions [B, *D], somewhat alike."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=shape)
    null = raw + spread * rng.normal(size=shape)
    return raw.astype(np.float32), null.astype(np.float32)


def march(transform, raws, nulls, times, *, kind="denoised", **conds):
    """Guided predictions of a network that returns its condition, step after step."""
    function = jg.guide(lambda x, t, cond: cond, transform, kind=kind)
    x = np.full_like(raws[0], 0.3)
    state, outs = function.init(x), []
    for raw, null, t in zip(raws, nulls, times, strict=True):
        out, state = function(x, t, raw, state, conds={"null": null, **conds})
        outs.append(np.asarray(out))
    return np.stack(outs)


def guided(transform, raw, null, t=T, **options):
    """One guided prediction; the network says what is denoised, if nothing else."""
    return march(transform, [raw], [null], [t], **options)[0]


def inner(left, right):
    """Inner products of samples [B] in float64."""
    flat = [np.asarray(one, np.float64).reshape(len(one), -1) for one in (left, right)]
    return (flat[0] * flat[1]).sum(axis=1)


def length(value):
    return np.sqrt(inner(value, value))


def columns(number, like):
    """Numbers [B] to multiply arrays [B, *D]."""
    return np.reshape(number, (-1,) + (1,) * (like.ndim - 1))
