"""Float64 formulas of what couples to the sampler, saves evaluations or has an energy.

As `reference`, and on the linear path too. The functions that stand in for classifiers
and energies are written twice: in jax for the library, in numpy for the formulas.
"""

import jax.numpy as jnp
import numpy as np

# Logits of a linear classifier of four numbers into three classes.
LOGITS = np.array([[0.8, -0.3, 0.1], [-0.5, 0.4, 0.6], [0.2, 0.9, -0.7], [0.1, 0, 0.4]])
# a and b of a regression on the present and one past step.
COEFFICIENTS = np.array([[[0.6], [0.3]]])


def centre(label):
    """Where the energy of a label is lowest, the same number in all dimensions."""
    return 0.4 * label - 0.3


def log_prob_noisy(x, t, label):
    """A stand-in for log p(y | x_t), in jax."""
    near = centre(label.astype(x.dtype))[None] - x.reshape(len(x), -1).T
    return -(1 - t).astype(x.dtype) * (near**2).sum(axis=0) / 2


def log_prob(x0, label):
    """A stand-in for log p(y | x0), in jax; not quadratic."""
    near = centre(label.astype(x0.dtype))[None] - x0.reshape(len(x0), -1).T
    return -jnp.sqrt(1 + near**2).sum(axis=0)


def energy(x0, label):
    return -log_prob(x0, label)


def logits(x0):
    return x0.reshape(len(x0), -1) @ jnp.asarray(LOGITS, x0.dtype)


def slope(x0, label):
    """The gradient of `log_prob` at x0 [B, n]."""
    near = centre(label)[:, None] - x0
    return near / np.sqrt(1 + near**2)


def stepped(s, clean, noise):
    """The velocity with which Euler reaches (1 - end) clean + end noise."""
    return ((1 - s.end) * clean + s.end * noise - s.x) / (s.end - s.t)


def pair(s, velocity):
    return s.x - s.t * velocity, s.x + (1 - s.t) * velocity


def scored(s, weight, score):
    """A velocity with something added to its score."""
    return s.raw if s.t >= 1 else s.raw - weight * s.t / (1 - s.t) * score


def cfgpp(s, scale, inside=True):
    if not inside:
        return s.raw
    null = s.v("null")
    clean, _ = pair(s, null + scale * (s.raw - null))
    return stepped(s, clean, pair(s, null)[1])


def cfgpp_inverse(s, scale):
    null = s.v("null")
    _, noise = pair(s, null + scale * (s.raw - null))
    return stepped(s, pair(s, null)[0], noise)


def rectified_cfgpp(s, weight, power):
    middle = (s.t + s.end) / 2
    x = s.x + (middle - s.t) * s.raw
    found = [s.main.velocity(x, middle, s.conds[name]) for name in ("cond", "null")]
    return s.raw + weight * (1 - s.t) ** power * (found[0] - found[1])


def cfg_cache(s, scale, low, high):
    """Every other step is full. On 2 x 2 pixels the low band is the mean."""
    if s.index % 2 == 0:
        difference = s.v("null") - s.raw
    else:
        before = s.previous
        null = s.main.velocity(before["x"], before["t"], s.conds["null"])
        difference = null - before["raw"]
        mean = difference.mean(axis=1, keepdims=True)
        difference = low * mean + high * (difference - mean)
    return s.raw - (scale - 1) * difference


def linear_ag(s, scale):
    """Every other step is regressed, in predictions of noise."""
    if s.index % 2 == 0:
        null = s.v("null")
        return null + scale * (s.raw - null)
    before = s.previous
    old = s.main.velocity(before["x"], before["t"], s.conds["null"])
    (here,), (past,) = COEFFICIENTS[0]
    noise = pair(s, s.raw)[1]
    null = here * noise + past * (before["x"] + (1 - before["t"]) * old)
    guided = null + scale * (noise - null)
    return (guided - s.x) / (1 - s.t)


def rcfg(s, scale, x0, delta=1.0):
    """Away from the noise between x and one image, in predictions of noise."""
    if s.t >= 1:  # there the velocity of the virtual pair, with delta = 1
        null = s.x - x0
        return null + scale * (s.raw - null)
    virtual = delta * (s.x - (1 - s.t) * x0) / s.t
    guided = virtual + scale * (pair(s, s.raw)[1] - virtual)
    return (guided - s.x) / (1 - s.t)


def rcfg_once(s, scale):
    null = s.main.velocity(s.first["x"], s.first["t"], s.conds["null"])
    return rcfg(s, scale, s.first["x"] - s.first["t"] * null)


def rcfg_input(s, scale, delta):
    return rcfg(s, scale, s.conds["source"].reshape(s.x.shape), delta)


def classifier(s, weight):
    near = centre(s.conds["cond"])[:, None] - s.x
    return scored(s, weight, (1 - s.t) * near)


def classifier_denoised(s, weight, temperature, others):
    clean, _ = pair(s, s.raw)
    scores = np.exp(others * (clean @ LOGITS))
    share = scores / scores.sum(axis=1, keepdims=True)
    gradient = temperature * LOGITS[:, s.conds["cond"]].T - others * share @ LOGITS.T
    return scored(s, weight, gradient)


def through_network(s):
    """The gradient at x of log_prob(denoised(x)), by central differences."""
    label, found, h = s.conds["cond"], np.zeros_like(s.x), 1e-5

    def value(x):
        near = centre(label)[:, None] - s.main.moments(x, s.t, label)[0]
        return -np.sqrt(1 + near**2).sum(axis=1)

    for i in range(s.x.shape[1]):
        step = h * np.eye(s.x.shape[1])[i]
        found[:, i] = (value(s.x + step) - value(s.x - step)) / (2 * h)
    return found


def tfg(s, mean, variance, steps):
    """Ye et al.'s Algorithm 1 without smoothing and recurrence."""
    clean, noise = pair(s, s.raw)
    moved = clean
    for _ in range(steps):
        moved = moved + mean * slope(moved, s.conds["cond"])
    if variance and s.t < 1:
        moved = moved + variance / (1 - s.t) * through_network(s)
    return stepped(s, moved, noise)
