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
    previous: dict | None  # the step before: x, t, raw velocity and scene
    end: float = 0.0  # where the step ends
    drawn: np.ndarray | None = None  # other labels that the network was told
    index: int = 0  # of the step
    first: dict | None = None  # x and t of the first step

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


def nested(s, outer, inner):
    """InstructPix2Pix's Eq. 3 with `other` in the place of the image."""
    null, other = s.v("null"), s.v("other")
    return null + outer * (other - null) + inner * (s.raw - other)


def perp_neg(s, weight):
    """The negative direction without its projection on the positive one."""
    null = s.v("null")
    out = s.raw.copy()
    for i, (main, bad) in enumerate(
        zip(s.raw - null, s.v("negative") - null, strict=True)
    ):
        unit = main / np.linalg.norm(main)
        out[i] -= weight * (bad - (bad @ unit) * unit)
    return out


def other_network(s, scale, cond):
    away = s.v(cond, mixture=s.weak)
    return away + scale * (s.raw - away)


def rlg(s, scale, cfg_scale):
    """arXiv:2508.21016: the main mixture is the tuned network, the weak the base."""
    tuned = cfg(s, cfg_scale)
    null = s.v("null", mixture=s.weak)
    base = null + cfg_scale * (s.v(mixture=s.weak) - null)
    return (1 - scale) * base + scale * tuned


def sine(s, scale, weight, inside=True):
    weight = weight if inside else 0.0
    null, tuned = s.v("null"), s.v("other", mixture=s.weak)
    return null + scale * ((1 - weight) * s.raw + weight * tuned - null)


def icg(s, scale):
    """Away from the labels that were drawn."""
    away = s.main.velocity(s.x, s.t, s.drawn)
    return away + scale * (s.raw - away)


def ab2(s, weight):
    """Adams-Bashforth on an uneven grid; `weight` 1 is the solver."""
    if s.previous is None:
        return s.raw
    ratio = (s.t - s.end) / (s.previous["t"] - s.t)
    solver = (1 + ratio / 2) * s.raw - ratio / 2 * s.previous["raw"]
    return (1 - weight) * s.raw + weight * solver


def blur_2x2(x, sigma):
    """A kernel of three taps on two pixels: both neighbours are the other pixel."""
    side = np.exp(-0.5 / sigma**2)
    other = 2 * side / (1 + 2 * side)
    mix = np.array([[1 - other, other], [other, 1 - other]])
    return np.einsum("ij,bjk,lk->bil", mix, x.reshape(-1, 2, 2), mix).reshape(x.shape)


def blurred_denoised(s, weight, sigma):
    """Blur guidance on noise predictions, then back to a velocity."""
    if s.t >= 1.0:  # the velocity holds no trace of the noise there
        return s.raw
    noise = s.x + (1 - s.t) * s.raw
    clean = s.x - s.t * s.raw
    x = (1 - s.t) * blur_2x2(clean, sigma) + s.t * noise
    away = x + (1 - s.t) * s.main.velocity(x, s.t, s.conds["cond"])
    guided = noise + weight * (noise - away)
    return (guided - s.x) / (1 - s.t)


def blurred_state(s, weight, sigma):
    away = s.main.velocity(blur_2x2(s.x, sigma), s.t, s.conds["cond"])
    return s.raw + weight * (s.raw - away)


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


def euler(mixture, weak, rule, x, grid, conds, kept, drawn=None):
    """Integrates a guided velocity; `kept[i]` are the masks that step i used, and
    `drawn[i]` its random labels."""
    previous = first = None
    for i, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        scene = Scene(mixture, weak, x, t, conds, kept[i], previous, s)
        scene.drawn = None if drawn is None else drawn[i]
        first = dict(x=x, t=t) if i == 0 else first
        scene.index, scene.first = i, first
        velocity = rule(scene)
        previous = dict(x=x, t=t, raw=scene.raw, scene=scene)
        x = x + (s - t) * velocity
    return x
