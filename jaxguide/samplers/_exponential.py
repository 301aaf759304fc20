"""Exponential integrators in log-SNR: the arithmetic that several samplers share.

With l = log(alpha / sigma) as the clock, h the step in l, D the denoised prediction
along the trajectory and x_t = alpha_t D_0 + sigma_t noise, the probability-flow ODE
has the solution

    x_s = alpha_s D_0 + sigma_s noise
          + alpha_s integral_0^1 h e^(-h (1 - u)) (D(l_t + u h) - D_0) du         (1)

The solvers replace D - D_0 by a polynomial in u through known values. With `eta` the
reverse SDE of the same marginals is solved instead: noise shrinks to e^(-eta h) of
itself, fresh noise fills the variance up, and h becomes (1 + eta) h in the integral.
"""

import math
from typing import Any

import numpy as np

from jaxguide.paths import NOTHING, Array, ArrayLike, Node, expand


def log_snr(node: Node) -> np.ndarray:
    """log(alpha / sigma) on the host; infinite where there is no data or no noise."""
    with np.errstate(divide="ignore"):
        # abs: rounding may leave sigma = -0 at t = 0 (DDPM's table).
        ratio = np.asarray(node.alpha / np.abs(node.sigma), np.float64)
        return np.where(ratio < NOTHING, -np.inf, np.log(ratio))


def moment(k: int, h: Any) -> np.ndarray:
    """integral_0^1 h e^(-h (1 - u)) u^k du for h > 0, = k! h phi_{k+1}(-h)."""
    h = np.asarray(h, np.float64)
    with np.errstate(all="ignore"):
        value = -np.expm1(-h)
        for j in range(1, k + 1):  # by parts; loses digits where h is small
            value = 1 - j * value / h
        # The power series of the same integral; below 1, twenty terms reach float64.
        rates = [(-1) ** n / math.perm(k + n + 1, n + 1) for n in range(20)]
        series = h * np.polynomial.polynomial.polyval(h, rates)
    # Both are computed for all h: where one fails, the other is taken.
    return np.where(h < 1, series, value)


def mix(alpha: ArrayLike, denoised: Array, sigma: ArrayLike, noise: Array) -> Array:
    """alpha denoised + sigma noise, with coefficients [] or [B]."""
    return expand(alpha, denoised) * denoised + expand(sigma, noise) * noise
