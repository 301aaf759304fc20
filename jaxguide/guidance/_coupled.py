"""Rules that reach into the sampler's step: CFG++ and Rectified-CFG++."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL, RAW, Branch, Change, Guided, View
from jaxguide.guidance._checks import static_number
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import NATIVE, add_scaled, check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, ArrayLike, expand, numerics


def noise_of(guided: Guided, here: View) -> Array:
    """The noise that a sampler would use now, [B, *D]."""
    if guided.noise is not None:
        return guided.noise
    return here.convert(guided.prediction, NATIVE, "noise")


@pytree("scale", "inside")
class CFGpp(Transform):
    """See `cfgpp`."""

    scale: Schedule
    inside: Schedule  # a Schedule, 1 inside the window and 0 outside
    inverse: bool = False

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The unconditional prediction."""
        del network
        return (NULL,)

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The window alone: there is no neutral scale."""
        return ((self.inside, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Takes data from one prediction and noise from the other."""
        null = here[NULL]
        difference = here[RAW] - null
        # How much of the condition each of the two has; `inverse` swaps them.
        scale, inside = self.scale.number, self.inside.number
        clean, noisy = scale, jnp.zeros_like(scale)
        clean, noisy = (noisy, clean) if self.inverse else (clean, noisy)
        prediction = add_scaled(guided.prediction, inside * (clean - 1), difference)
        noise = here.convert(add_scaled(null, noisy, difference), NATIVE, "noise")
        noise = jnp.where(
            expand(inside, noise) > 0, noise, noise_of(guided, here).astype(noise.dtype)
        )
        return Guided(prediction, noise)


def cfgpp(
    scale: Weight = 0.6,
    *,
    inverse: bool = False,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> CFGpp:
    """CFG++: denoises with the guided prediction, renoises with the unconditional one.

        denoised = D of null + scale(t) * (raw - null);   noise = noise of null
        x_s = alpha_s denoised + sigma_s noise

    No scale is neutral: 0 is unconditional sampling, 1 moves the noise alone. With
    `ddim`, and with `euler` on the linear path, it equals `cfg` with the scale
    `scale alpha_s sigma_t / (alpha_s sigma_t - sigma_s alpha_t)`, which grows as steps
    get shorter: with twice the steps, the same scale guides twice as much.

    Samplers use the pair as follows. `euler`, `ddim`, `ddpm` take one step from it.
    Multistep ones renoise with this noise and keep guided `denoised` as history; the
    authors keep the unconditional one: `dpmpp_2m("mixed")`. `heun` and `res_2s`
    predict so and average two such steps. `diffrax` has no renoising: it follows the
    pair's velocity, which is not the method.

    Args:
        scale: the paper's lambda in [0, 1]; number, array [B], function, `Schedule`.
            0.2, 0.4, 0.6, 0.8, 1 stand for CFG scales 2, 5, 7.5, 9, 12.5 there.
        inverse: for `invert`: the two predictions change roles.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; outside, the transform is away
            and the prediction is the plain conditional one.

    Returns:
        A transform without state; it needs the condition `null` and a sampler that
        takes the pair (`generate`, or `Guide.pair`).

    Raises:
        InputError: if `scale` is outside [0, 1] or the window is empty.

    NFE: +1 inside the window.
    Source: Chung et al. 2024, arXiv:2406.08070, Algorithms 1 and 2; read against
        CFGpp-diffusion/CFGpp, latent_diffusion.py.
    Differs from the source: for any path; on flows it renoises with the noise of the
        unconditional velocity, as the authors advise, not with that velocity itself.
        Inverted, the network is told the cleaner time of a step, at which x is, as in
        Algorithm 2; the authors' code tells it the noisier one. DPM++(2M) has their
        history by name only (see above).
    """
    hint = "0.6 is about a CFG scale of 7.5."
    check_number("cfgpp", "scale", scale, low=0, high=1, hint=hint)
    inside = schedules.window(1.0, outside=0.0, t_lo=t_lo, t_hi=t_hi)
    return CFGpp(schedules.constant(scale), inside, inverse)


def middle(t: Any, next_t: Any) -> Any:
    """The time half-way through the step.

    Raises:
        InputError: if the sampler does not say where the step ends.
    """
    if next_t is None:
        raise InputError(
            "rectified_cfgpp: need the time at which the step ends, got next_t=None. "
            "Pass next_t= to the guided function, or use `generate`."
        )
    return t + (next_t - t) / 2


@dataclasses.dataclass(frozen=True)
class HalfStep(Change):
    """x half-way through the step, along the conditional velocity."""

    name = "rectified_cfgpp"
    second = True

    def x(self, here: View) -> Array:
        """The new input [B, *D]."""
        step, velocity = here.step, here.read(RAW, "velocity")
        assert step.next_node is not None  # `middle` has asked for it
        half = (step.next_node.t - step.node.t) / 2
        return step.x + expand(half, step.x) * velocity.astype(step.x.dtype)


MIDDLE = Branch(time=middle, change=HalfStep())
MIDDLE_NULL = dataclasses.replace(MIDDLE, cond="null")


@pytree("weight")
class RectifiedCFGpp(Transform):
    """See `rectified_cfgpp`."""

    weight: Schedule
    power: float = 0.0

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """Both predictions half-way through the step."""
        del network
        return (MIDDLE, MIDDLE_NULL)

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def live(self, t: float, index: int = 0) -> bool:
        """False where the weight, or its power of 1 - t, is 0."""
        return bool(self._fade(t) != 0) and super().live(t, index)

    def change(self, guided: Guided, here: View) -> Guided:
        """Adds the difference of the predictions half-way."""
        difference = here.read(MIDDLE, "velocity")
        difference = difference - here.read(MIDDLE_NULL, "velocity")
        difference = here.to_native(difference, "velocity")
        weight = self.weight.number * self._fade(here.step.node.t)
        return guided.plus(weight, difference)

    def _fade(self, t: ArrayLike) -> Any:
        """(1 - t)^power, and 1 also at t = 1 for power 0."""
        return numerics(t).maximum(1.0 - t, 0.0) ** self.power if self.power else 1.0


def rectified_cfgpp(
    weight: Weight, *, power: float = 0.0, t_lo: float = 0.0, t_hi: float = 1.0
) -> RectifiedCFGpp:
    """Rectified-CFG++: adds the difference after a conditional half step.

        x_mid = x + (s - t) / 2 velocity(x, t),   t_mid = (t + s) / 2
        guided + weight (1 - t)^power (velocity - velocity_null)(x_mid, t_mid)

    where the step goes from t to s. Made for flows; on other paths and kinds of network
    the difference is taken in velocities. In the second stage of a two-stage sampler,
    which stands at the step's end, the half step has length 0.

    Args:
        weight: the paper's lambda_max, dimensionless, neutral at 0; number, array [B],
            function of noise time, `Schedule`.
        power: the paper's gamma >= 0; 0 is a constant weight.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs the condition `null`, and the time at which
        the step ends (`generate` knows it; pass `next_t` to what `guide` returns).

    Raises:
        InputError: if a number is not finite, `power` negative, or the window empty;
            at the call if the step's end is unknown.

    NFE: +2 inside the window (3 in all); 0 more where the weight is 0, so at t = 1
        with power > 0.
    Source: Saini et al. 2025, arXiv:2510.07631, Algorithm 1, known at second hand only
        (summaries and two ports that agree, the mid-point being evaluated at its own
        time); authors' code: shreshthsaini/Rectified-CFGpp @d90b8d7, pipeline.py.
    Differs from the source: the authors' code takes a whole step in place of the half,
        gives the network its end time, adds noise of 0.005 there, keeps the weight
        constant (4.5, hence power 0 here). Ports of time 1 - t read (1 - t) with
        data at 1.
    """
    check_number("rectified_cfgpp", "weight", weight)
    power = static_number("rectified_cfgpp", "power", power, low=0)
    weight = schedules.window(weight, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    return RectifiedCFGpp(weight, power)
