"""Training-free guidance by a function of clean data: TFG, and DPS and MPGD in it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import Branch, Guided, View, find_condition
from jaxguide.guidance._checks import check_value, is_whole, static_number
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._coupled import noise_of
from jaxguide.guidance._energies import as_leaves, gradient
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import NATIVE, add_scaled, check_number, pytree
from jaxguide.guidance._transform import Transform
from jaxguide.guidance.schedules import Schedule
from jaxguide.paths import Array, Path, expand, numerics

THROUGH = Branch(differentiable=True)
PLACES = ("denoised", "network")
SHAPES = ("constant", "increase", "decrease")


@pytree("mean", "variance", "log_prob")
class TFG(Transform):
    """See `tfg`."""

    mean: Schedule | None  # None leaves that part out
    variance: Schedule | None
    log_prob: Callable
    steps: int = 1
    smoothing: float = 0.0
    samples: int = 1
    sign: float = 1.0
    condition: str = "cond"
    name: str = "tfg"

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The network as a function of x, if the gradient goes through it."""
        del network
        return () if self.variance is None else (THROUGH,)

    def live(self, t: float, index: int = 0) -> bool:
        """False where both weights are 0."""
        del index
        both = (one for one in (self.mean, self.variance) if one is not None)
        return any(not one.neutral_at(t, 0.0) for one in both)

    def change(self, guided: Guided, here: View) -> Guided:
        """Moves denoised uphill and leaves the noise that the sampler renoises with."""
        step, log_prob = here.step, self._smoothed(here)
        shift = jnp.zeros_like(step.x)
        if self.mean is not None:
            x0 = here.convert(guided.prediction, NATIVE, "denoised")
            x0 = x0.astype(step.x.dtype)
            shift = _climb(log_prob, x0, self.mean.number, self.steps)
        if self.variance is not None:
            shift = shift + self._through_network(log_prob, self.variance.number, here)
        change = here.to_native(shift, "denoised").astype(guided.prediction.dtype)
        # 0 - change is +0 for either zero, and to subtract that keeps every bit.
        prediction = guided.prediction - (0 - change)
        return Guided(prediction, noise_of(guided, here))

    def _through_network(
        self, log_prob: Callable, variance: Array, here: View
    ) -> Array:
        """variance / alpha * gradient at x of log_prob(denoised(x)); 0 at alpha = 0."""
        predict, step = here.function(THROUGH), here.step
        kind = here.network.kind

        def denoised(x: Array) -> Array:
            return paths.to_pair(kind, predict(x), x, step.node)[0]

        push = gradient(lambda x: log_prob(denoised(x)), step.x)
        # The inner `where` keeps the division finite also in the gradient of the whole.
        alpha = expand(step.node.alpha, push)
        push = jnp.where(alpha > 0, push / jnp.where(alpha > 0, alpha, 1), 0)
        return add_scaled(jnp.zeros_like(push), variance, push)

    def _smoothed(self, here: View) -> Callable[[Array], Array]:
        """log mean exp over noisy copies of x0, or the function itself; [B]."""
        step = here.step
        cond = find_condition(self.name, self.condition, step)

        def plain(x0: Array) -> Array:
            return self.sign * self.log_prob(x0, cond)

        if not self.smoothing:
            return plain
        shape = (self.samples, *step.x.shape)
        noise = jax.random.normal(here.key(self.name), shape, step.x.dtype)
        noise = noise * expand(self.smoothing * step.node.sigma, step.x)[None]

        def smooth(x0: Array) -> Array:
            # One copy after the other, not a larger batch: log_prob sees rows that fit
            # its condition. A mean of probabilities, so logsumexp and not a mean.
            each = jnp.stack([plain(x0 + one) for one in noise])
            return jax.nn.logsumexp(each, axis=0) - float(np.log(self.samples))

        return smooth


def _climb(log_prob: Callable, x0: Array, weight: Array, steps: int) -> Array:
    """How far `steps` steps along the gradient lead from x0; 0 where `weight` is 0."""
    shift = jnp.zeros_like(x0)
    for _ in range(steps):
        shift = add_scaled(shift, weight, gradient(log_prob, x0 + shift))
    return shift


def tfg(
    log_prob: Callable[[Array, Any], Array],
    *,
    mean: Weight = 0.25,
    variance: Weight = 1.0,
    steps: int = 4,
    smoothing: float = 0.0,
    samples: int = 1,
    condition: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> TFG:
    """TFG: raises any function of clean data, at denoised and through the network.

        denoised + variance(t) / alpha * grad_x f(denoised(x))
                 + sum over steps of mean(t) * grad_x0 f(x0),   x0 from denoised on
        f(x0) = log mean_k exp log_prob(x0 + smoothing sigma noise_k)

    The noise that the sampler renoises with stays as it is, so that DDIM gives
    x_s + alpha_s / alpha_t Delta_variance + alpha_s Delta_mean. Put it last in a chain:
    it takes the noise of what stands to its left. Repeat steps with `recurrent`.
    `mean=0` is DPS, `variance=0` MPGD and a cheap choice; see `energy`.

    Args:
        log_prob: `(x0 [B, *D], y) -> [B]`, differentiable, each sample by itself; as in
            `classifier`.
        mean, variance: the paper's mu and rho, in units of x^2 per unit of log_prob,
            neutral at 0; number, array [B], function, `Schedule` (`tfg_schedule` has
            the paper's). A Python 0 leaves that part out, if the other is not 0.
        steps: gradient steps of the mean part.
        smoothing: standard deviation of the copies in units of sigma (the paper's
            gamma), 0 for none; needs a key.
        samples: copies.
        condition: name of the condition that is y, of the sampler's `conds`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state, for samplers that take the pair (`generate`, or
        `Guide.pair`).

    Raises:
        InputError: if a number is out of range or the window empty; at the call if the
            condition or the key is missing; if `log_prob` is no function.

    NFE: +1, a gradient through the network, where `variance` is not 0 (+0 for a
        Python 0); `steps` gradients of log_prob where `mean` is not.
    Source: Ye et al. 2024, arXiv:2409.15761, Algorithm 1, known at second hand only;
        read against ports of YWolfeee/Training-Free-Guidance, methods/tfg.py (CIFAR:
        variance 1, mean 0.25, smoothing 0.001; ImageNet: 2, 0.5, 0.1).
    Differs from the source: gradients are not clipped (the code rescales large ones);
        the network is evaluated once more for its gradient. On a flow, 1 / alpha is
        large near t = 1: open the window below. TFG-Flow (arXiv:2501.14216) moves x
        instead and is not this.
    """
    for argument, value in (("mean", mean), ("variance", variance)):
        check_number("tfg", argument, value)
    smoothing = static_number("tfg", "smoothing", smoothing, low=0)
    for argument, value in (("steps", steps), ("samples", samples)):
        if not is_whole(value) or value < 1:
            raise InputError(
                f"tfg: need an integer {argument} >= 1, got {argument}={value!r}."
            )
    window = functools.partial(schedules.window, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    # None and not a weight of 0: the part, and its gradient, is then in no program.
    return TFG(
        None if _zero(mean) and not _zero(variance) else window(mean),
        None if _zero(variance) and not _zero(mean) else window(variance),
        as_leaves("tfg", log_prob),
        steps,
        smoothing,
        samples,
        condition=condition,
    )


def energy(
    weight: Weight,
    function: Callable[[Array, Any], Array],
    *,
    through: str = "denoised",
    condition: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> TFG:
    """Lowers any energy of clean data: MPGD, or DPS if through the network.

        through="denoised":  denoised - weight(t) * grad_x0 E(denoised)
        through="network":   denoised - weight(t) / alpha * grad_x E(denoised(x))

    The noise that the sampler renoises with stays as it is. Put it last in a chain, as
    `tfg`, of which it is one part.

    Args:
        weight: in units of x^2 per unit of energy, neutral at 0; number, array [B],
            function of noise time, `Schedule`.
        function: `(x0 [B, *D], y) -> E [B]`, such as a squared distance; as `log_prob`
            in `classifier`.
        through: "denoised" needs no gradient of the network, "network" one.
        condition: name of the condition that is y, of the sampler's `conds`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state, for samplers that take the pair.

    Raises:
        InputError: if `weight` is not finite, `through` unknown or the window empty; at
            the call if the condition is missing; if it is no function.

    NFE: +0 with "denoised", +1 with "network" (a gradient through the network).
    Source: He et al. 2023, MPGD, arXiv:2311.16424; Chung et al. 2022, DPS,
        arXiv:2209.14687; both known at second hand only, as special cases of TFG.
    Differs from the source: MPGD's projection by an autoencoder is not here; DPS
        subtracts weight * gradient from the next state, which is alpha_s / alpha_t less
        here, and divides by the root of E if its energy is a squared norm.
    """
    check_number("energy", "weight", weight)
    if through not in PLACES:
        raise InputError(f"energy: need through in {PLACES}, got through={through!r}.")
    schedule = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    mean, variance = (schedule, None) if through == "denoised" else (None, schedule)
    function = as_leaves("energy", function)
    return TFG(mean, variance, function, sign=-1.0, condition=condition, name="energy")


def _zero(weight: Weight) -> bool:
    """Whether it is 0 for good."""
    return isinstance(weight, int | float) and weight == 0


@dataclasses.dataclass(frozen=True)
class StepShape:
    """Numbers of the steps of a grid as a function of noise time. Hashable."""

    # Tuples: the shape of a schedule is static, so it must have a hash.
    times: tuple[float, ...]  # increasing
    values: tuple[float, ...]

    def __call__(self, t: Array) -> Array:
        xp = numerics(t)
        return xp.interp(t, xp.asarray(self.times), xp.asarray(self.values))


def tfg_schedule(value: Any, shape: str, path: Path, grid: Any) -> Schedule:
    """A weight for `tfg` that grows or falls along the grid, of mean `value`.

        increase: in proportion to a = (alpha_t / alpha_s)^2;   decrease: to 1 - a

    where a step goes from t to s.

    Args:
        value: the mean over the steps; traced numbers are welcome.
        shape: one of "constant", "increase", "decrease".
        path: of the network.
        grid: strictly decreasing noise times [N + 1].

    Raises:
        InputError: if `shape` is unknown or the grid bad.

    Source: as `tfg` (get_rho and get_mu there).
    """
    grid = paths.check_grid("tfg_schedule", grid)
    check_value("tfg_schedule", "value", value)
    if shape not in SHAPES:
        raise InputError(f"tfg_schedule: need shape in {SHAPES}, got shape={shape!r}.")
    if shape == "constant":
        return schedules.constant(value)
    alpha = path.node(grid).alpha
    ratio = (alpha[:-1] / alpha[1:]) ** 2
    ratio = ratio if shape == "increase" else 1 - ratio
    ratio = ratio / ratio.mean()
    # Reversed: interpolation needs increasing times, and a grid decreases.
    shaped = StepShape(tuple(grid[:-1][::-1].tolist()), tuple(ratio[::-1].tolist()))
    return Schedule(value, shape=shaped)
