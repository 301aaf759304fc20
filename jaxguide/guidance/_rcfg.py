"""Residual CFG: a virtual null prediction, from one image for all steps."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL, RAW, Branch, Guided, Step, View
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import NATIVE, check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array, expand

SOURCES = ("once", "input")


class RCFGState(NamedTuple):
    """The memory of `rcfg` with `source="once"`."""

    x0: Array  # [B, *D] the data that the null prediction of the first step stands for
    ready: Array  # [] bool; False until it is there


@pytree("scale", "delta")
class RCFG(Transform):
    """See `rcfg`."""

    scale: Schedule
    delta: Schedule
    source: str = "once"

    name = "rcfg"

    def init(self, x: Array) -> Any:
        """An empty memory, or none for a given image."""
        if self.source == "input":
            return ()
        return RCFGState(jnp.zeros_like(x), jnp.zeros((), bool))

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The unconditional prediction, for the first step."""
        del network
        return () if self.source == "input" else (NULL,)

    def live(self, t: float, index: int = 0) -> bool:
        """The first step of `source="once"`; only a scale of always 1 needs none."""
        always = self.scale.shape is None and not self.scale.windows
        return (
            self.source == "once"
            and index == 0
            and not (always and self.scale.neutral_at(t, 1.0))
        )

    def apply(
        self, guided: Guided, state: Any, here: View, *, live: bool
    ) -> tuple[Guided, Any]:
        """Away from the noise that takes the remembered image to x."""
        weight = self.scale.number - 1
        if live:
            null = here[NULL]
            # Kept as data: it stays one image, while the noise that leads from it to x
            # is another in every step.
            x0 = here.convert(null, NATIVE, "denoised")
            state = RCFGState(x0.astype(state.x0.dtype), jnp.ones((), bool))
        else:
            if self.source == "input":
                x0 = _image(here.step)
            else:
                state = state._replace(ready=state.ready & ~here.step.restart)
                weight = jnp.where(state.ready, weight, jnp.zeros_like(weight))
                x0 = state.x0
            x0 = x0.astype(here.step.x.dtype)
            null = here.convert(x0, "denoised", NATIVE).astype(here[RAW].dtype)
        change = here[RAW] - null + self._damped(null, here)
        return guided.plus(weight, change), state

    def _damped(self, null: Array, here: View) -> Array:
        """What `delta` takes off the virtual noise, in the network's kind."""
        noise = here.convert(null, NATIVE, "noise")
        rest = expand(1 - self.delta.number, noise) * noise
        return here.to_native(rest, "noise").astype(null.dtype)


def _image(step: Step) -> Array:
    """The condition `source`; raises InputError if it is not there or not like x."""
    image = step.conds.get("source")
    if image is None or image.shape != step.x.shape:
        raise InputError(
            "rcfg: need the condition 'source', an image shaped like x "
            f"{step.x.shape}, got {None if image is None else image.shape}. Pass "
            "conds={'source': ...}, or use source='once'."
        )
    return image


def rcfg(scale: Weight = 1.2, *, delta: Weight = 1.0, source: str = "once") -> RCFG:
    """Residual CFG: away from a virtual null prediction that costs no evaluation.

        noise_null = (x - alpha x0') / sigma
        guided: delta noise_null + scale (noise - delta noise_null)

    x0' is one image for all steps: what the null prediction of the first step says is
    clean (`source="once"`, the first step being plain CFG), or the condition `source`,
    such as the image that is being changed (`source="input"`).

    Args:
        scale: dimensionless, neutral at 1; number, array [B], function, `Schedule`.
        delta: factor of the virtual noise, moderates `scale`; 1 leaves it.
        source: "once" (the paper's onetime-negative) or "input" (self-negative).

    Returns:
        A transform; "once" has a state of one array like x [B, *D] and one bool, and
        needs the condition `null`; "input" needs the condition `source` [B, *D].

    Raises:
        InputError: if a number is not finite or `source` unknown; at the first trace
            if the condition `source` is missing or not shaped like x.

    NFE: "once" +1 in the first step, "input" +0. Memory: "once" one copy of x. Through
        `guide` every call under jit is a first step.
    Source: Kodaira et al. 2023, StreamDiffusion, arXiv:2312.12491, residual CFG; read
        against cumulo-autumn/StreamDiffusion @05a00a5, pipeline.py (scale 1.2, delta
        1).
    Differs from the source: the code keeps a running "stock noise" in place of the
        formula and marks that as to be redone; here it is the paper's formula. At
        t = 1 of a flow, where noise says nothing of velocity, delta counts as 1.
    """
    check_number("rcfg", "scale", scale)
    check_number("rcfg", "delta", delta)
    if source not in SOURCES:
        raise InputError(f"rcfg: need source in {SOURCES}, got source={source!r}.")
    return RCFG(schedules.constant(scale), schedules.constant(delta), source)
