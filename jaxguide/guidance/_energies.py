"""Classifier guidance: the gradient of a classifier as a part of the score."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import Guided, View, find_condition
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._numbers import NATIVE, check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array


def as_leaves(name: str, function: Callable) -> Callable:
    """A function as a pytree, so that the arrays of a `Partial` are traced.

    Raises:
        InputError: if it cannot be called; `name` is that of the method.
    """
    if not callable(function):
        raise InputError(
            f"{name}: need a function, got {function!r}. In a config write "
            "'package.module:function'."
        )
    if isinstance(function, jax.tree_util.Partial):
        return function
    return jax.tree_util.Partial(function)


def gradient(function: Callable[[Array], Array], x: Array) -> Array:
    """Of a function x [B, *D] -> [B] whose samples do not mix; like x."""
    return jax.grad(lambda x: function(x).sum())(x)


@pytree("weight", "log_prob")
class Classifier(Transform):
    """See `classifier`."""

    weight: Schedule
    log_prob: Callable
    condition: str = "cond"

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Adds the classifier's gradient to the score."""
        cond = find_condition("classifier", self.condition, here.step)
        x, t = here.step.x, here.step.node.t
        times = jnp.broadcast_to(t, (len(x),))
        score = gradient(lambda x: self.log_prob(x, times, cond), x)
        return guided.plus(self.weight.number, here.to_native(score, "score"))


@pytree("weight", "logits", "temperature", "others")
class ClassifierDenoised(Transform):
    """See `classifier_denoised`."""

    weight: Schedule
    logits: Callable
    temperature: Schedule  # Schedules, likewise
    others: Schedule
    condition: str = "cond"

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Adds the gradient at denoised to the score at x."""
        label = find_condition("classifier_denoised", self.condition, here.step)

        def log_prob(x0: Array) -> Array:
            logits = self.logits(x0)
            own, all_of_them = (
                _column(temperature.number, logits) * logits
                for temperature in (self.temperature, self.others)
            )
            picked = jnp.take_along_axis(own, label[:, None], axis=1)[:, 0]
            return picked - jax.nn.logsumexp(all_of_them, axis=1)

        x0 = here.convert(guided.prediction, NATIVE, "denoised")
        score = gradient(log_prob, x0.astype(here.step.x.dtype))
        return guided.plus(self.weight.number, here.to_native(score, "score"))


def _column(value: Array, like: Array) -> Array:
    """A number [] or [B] that multiplies [B, C]."""
    return jnp.asarray(value).astype(like.dtype).reshape(-1, 1)


def classifier(
    weight: Weight,
    log_prob: Callable[[Array, Array, Any], Array],
    *,
    condition: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Classifier:
    """Classifier guidance: adds the gradient of a classifier of noisy data.

        score + weight(t) * grad_x log p(y | x_t)
        noise - weight(t) * sigma * grad_x log p(y | x_t)

    With the Bayes classifier of an unconditional network it equals `cfg` with that
    weight as scale; on a conditional network, with 1 + weight. At t = 1 of a flow
    a score says nothing of velocity, and nothing is added.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        log_prob: `(x [B, *D], t [B], y) -> log p(y | x_t) [B]`, differentiable, each
            sample by itself. Wrap weights as `jax.tree_util.Partial(function, params)`
            so that they are traced; pass one function, not a new lambda per call.
        condition: name of the condition that is y, of the sampler's `conds`.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if `weight` is not finite or the window empty; at the call if the
            condition is missing; if `log_prob` is no function.

    NFE: +0; one gradient of the classifier inside the window.
    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, Algorithm 2; read against
        openai/guided-diffusion.
    Differs from the source: for any path and kind of network. Its Algorithm 1 shifts
        the mean by variance times gradient, which agrees to first order in the step.
    """
    check_number("classifier", "weight", weight)
    log_prob = as_leaves("classifier", log_prob)
    schedule = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    return Classifier(schedule, log_prob, condition)


def classifier_denoised(
    weight: Weight,
    logits: Callable[[Array], Array],
    *,
    temperature: Weight = 1.0,
    others: Weight = 1.0,
    condition: str = "cond",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> ClassifierDenoised:
    """Guidance by an off-the-shelf classifier of clean data (EluCD).

        score + weight(t) * grad_x0 (tau1 f_y(x0) - log sum_c exp(tau2 f_c(x0)))
        at x0 = denoised, with tau1 = temperature, tau2 = others

    The gradient is taken at `denoised` and used as one at x; it does not go through the
    network. Smooth activations (softplus) are the classifier's own business.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
            The source's rule of a scale that changes with time is such a function.
        logits: `x0 [B, *D] -> f [B, C]`; as `log_prob` in `classifier`.
        temperature: multiplies the logit of the label (the source's tau1); likewise.
        others: multiplies all logits in the sum (tau2 = tau1 times a discount).
        condition: name of the condition that is the label, int [B].
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if a number is not finite or the window empty; at the call if the
            condition is missing; if `logits` is no function.

    NFE: +0; one gradient of the classifier inside the window.
    Source: Ma et al. 2023, EluCD, arXiv:2310.11311; read against AlexMaOLS/EluCD
        @9a85954, DDPM/scripts/classifier_sample.py.
    Differs from the source: the temperatures are two numbers, not one and a discount;
        denoised is not clipped; for any path and kind of network.
    """
    name = "classifier_denoised"
    for argument, value in (
        ("weight", weight),
        ("temperature", temperature),
        ("others", others),
    ):
        check_number(name, argument, value)
    return ClassifierDenoised(
        schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0),
        as_leaves(name, logits),
        schedules.constant(temperature),
        schedules.constant(others),
        condition,
    )
