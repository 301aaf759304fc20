"""Guidance and samplers once more, in float64 numpy, from the papers' formulas.

Shares no line with the library, so that agreement means something. The path is the
linear one, x = (1 - t) x0 + t noise; predictions are velocities.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Gaussian mixture on the linear path; labels pick components, `null` takes all."""

    means: np.ndarray  # [K, n]
    stds: np.ndarray  # [K]
    labels: np.ndarray  # [K]
    blocks: np.ndarray  # [depth] variance that leaving out a block adds
    null: int

    def moments(self, x, t, label, added=0.0):
        """(E[x0 | x], E[noise | x]) at states x [B, n], one label per state."""
        x0, noise = np.zeros_like(x), np.zeros_like(x)
        for i, (state, want) in enumerate(zip(x, label, strict=True)):
            here = [
                k for k in range(len(self.stds)) if want in (self.null, self.labels[k])
            ]
            logs, clean, dirt = [], [], []
            for k in here:
                data = self.stds[k] ** 2 + added
                total = (1 - t) ** 2 * data + t**2
                gap = state - (1 - t) * self.means[k]
                logs.append(-gap @ gap / (2 * total) - len(state) / 2 * np.log(total))
                clean.append(self.means[k] + (1 - t) * data / total * gap)
                dirt.append(t / total * gap)
            share = np.exp(np.array(logs) - max(logs))
            share /= share.sum()
            x0[i], noise[i] = share @ np.array(clean), share @ np.array(dirt)
        return x0, noise

    def velocity(self, x, t, label, added=0.0):
        """E[noise - x0 | x]."""
        x0, noise = self.moments(x, t, label, added)
        return noise - x0


@dataclasses.dataclass
class Scene:
    """One step as the formulas see it."""

    main: Mixture
    weak: Mixture
    x: np.ndarray
    t: float
    conds: dict
    kept: list  # of the block indices that the network was told to run, one per mask
    previous: dict | None  # the step before: x, t and raw velocity

    def v(self, cond="cond", t=None, mixture=None, added=0.0):
        mixture = self.main if mixture is None else mixture
        t = self.t if t is None else t
        return mixture.velocity(self.x, t, self.conds[cond], added)

    @functools.cached_property
    def raw(self):
        return self.v()

    def dropped(self):
        """Mean velocity of the networks with blocks left out."""
        left_out = [
            sum(b for i, b in enumerate(self.main.blocks) if i not in kept)
            for kept in self.kept
        ]
        return np.mean([self.v(added=a) for a in left_out], axis=0)


def cfg(s, scale, inside=True):
    null = s.v("null")
    return null + scale * (s.raw - null) if inside else s.raw


def negative(s, scale):
    away = s.v("negative")
    return away + scale * (s.raw - away)


def compose(s, weight):
    return s.raw + weight * (s.v("other") - s.v("null"))


def autoguidance(s, scale):
    weak = s.v(mixture=s.weak)
    return weak + scale * (s.raw - weak)


def sg(s, weight, shift):
    return s.raw + weight * (s.raw - s.v(t=min(s.t + shift, 1.0)))


def score_of(x, t, velocity):
    return -(x + (1 - t) * velocity) / t


def velocity_of(x, t, score):
    return -(x + t * score) / (1 - t)


def sg_score(s, weight, shift):
    """Eq. 9 of arXiv:2412.05827 on scores, mapped back to a velocity."""
    later = min(s.t + shift, 1.0)
    if s.t >= 1.0:  # the velocity holds no trace of the score there
        return s.raw
    now = score_of(s.x, s.t, s.raw)
    noisier = score_of(s.x, later, s.v(t=later))
    return velocity_of(s.x, s.t, now + weight * (now - noisier))


def sg_prev(s, weight, inside=True):
    if not inside or s.previous is None:
        return s.raw
    return s.raw + weight * (s.raw - s.previous["raw"])


def sg_prev_denoised(s, weight):
    if s.previous is None:
        return s.raw
    before = s.previous["x"] - s.previous["t"] * s.previous["raw"]
    now = s.x - s.t * s.raw
    return (s.x - (now + weight * (now - before))) / s.t


def s2(s, weight, inside=True):
    return s.raw + weight * (s.raw - s.dropped()) if inside else s.raw


def rescale(s, guided, weight):
    """Lin et al., Eqs. 15 and 16, standard deviations per sample."""
    factor = s.raw.std(axis=1, keepdims=True) / guided.std(axis=1, keepdims=True)
    return weight * (factor * guided) + (1 - weight) * guided


def euler(mixture, weak, rule, x, grid, conds, kept):
    """Integrates a guided velocity; `kept[i]` are the masks that step i used."""
    previous = None
    for i, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        scene = Scene(mixture, weak, x, t, conds, kept[i], previous)
        velocity = rule(scene)
        previous = dict(x=x, t=t, raw=scene.raw)
        x = x + (s - t) * velocity
    return x
