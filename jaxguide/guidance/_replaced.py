"""Maps that put something else in the place of the guided prediction, or of a part."""

import jax.numpy as jnp
from jax import lax

from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import RAW, Guided, View
from jaxguide.guidance._checks import is_whole, static_number
from jaxguide.guidance._contrast import to_columns
from jaxguide.guidance._numbers import pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform


@pytree("weight")
class GuidedChannels(Transform):
    """See `guided_channels`."""

    weight: Schedule
    number: int
    axis: int = -1

    name = "guided_channels"
    on_result = True

    def idle(self) -> bool:
        """All channels of a raw prediction are raw."""
        return True

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Puts the raw values back into the channels that are not guided."""
        value, axis = guided.prediction, self.axis
        if not -value.ndim < axis < value.ndim or not self.number <= value.shape[axis]:
            raise InputError(
                f"guided_channels: need number <= channels, got number={self.number!r}"
                f", axis={axis!r} for x.shape={value.shape}."
            )
        first = lax.slice_in_dim(value, 0, self.number, axis=axis)
        others = lax.slice_in_dim(here[RAW], self.number, None, axis=axis)
        mixed = jnp.concatenate([first, others], axis=axis)
        off = to_columns(self.weight.number, value) == 0
        return guided._replace(prediction=jnp.where(off, value, mixed))


def guided_channels(
    number: int = 3, *, axis: int = -1, t_lo: float = 0.0, t_hi: float = 1.0
) -> GuidedChannels:
    """Guides the first channels only; the others keep the raw prediction.

        where(channel < number, guided, raw)

    Acts on what stands to its left in the chain.

    Args:
        number: how many channels are guided, at least 1; DiT guides 3 of 4.
        axis: of the channels in x [B, *D].
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; off outside.

    Returns:
        A transform without state.

    Raises:
        InputError: if `number` is no integer above 0; at the first trace if there are
            fewer channels.

    NFE: +0.
    Source: Peebles and Xie, DiT, `forward_with_cfg` of facebookresearch/DiT and
        willisma/SiT ("for exact reproducibility": 3 of 4 channels).
    Differs from the source: any number of channels, after any guidance. The authors
        hold scale 1.5 on 3 channels for about 1.375 on 4.
    """
    if not is_whole(number) or number < 1:
        raise InputError(
            f"guided_channels: need an integer number >= 1, got number={number!r}."
        )
    if not is_whole(axis) or axis == 0:
        raise InputError(
            "guided_channels: need an axis of x other than 0, which is the batch, got "
            f"axis={axis!r}. The last one is axis=-1."
        )
    schedule = schedules.window(1.0, t_lo=t_lo, t_hi=t_hi, outside=0.0)
    return GuidedChannels(schedule, number, axis)


@pytree("weight")
class ZeroInit(Transform):
    """See `zero_init`."""

    weight: Schedule

    name = "zero_init"
    on_result = True

    def switches(self) -> tuple[tuple[Schedule, float], ...]:
        """The weight."""
        return ((self.weight, 0.0),)

    def change(self, guided: Guided, here: View) -> Guided:
        """Zeros where the weight is not 0."""
        del here
        value = guided.prediction
        off = to_columns(self.weight.number, value) != 0
        return guided._replace(prediction=jnp.where(off, 0.0, value))


def zero_init(t_lo: float = 0.96) -> ZeroInit:
    """No prediction at all in the first steps: they pass time and do not move x.

        0  for t >= t_lo,  guided  below

    For velocity networks, whose zero leaves x as it is. Stands last in a chain, and
    what stands to its left should have `t_hi=t_lo`, so that it costs nothing there.

    Args:
        t_lo: noise time from which on the prediction is zero, in [0, 1).

    Returns:
        A transform without state.

    Raises:
        InputError: if `t_lo` is outside [0, 1).

    NFE: +0; the raw prediction is still evaluated.
    Source: Fan et al. 2025, CFG-Zero*, arXiv:2503.18886; the paper zeroes 4 % of the
        steps.
    Differs from the source: a window in noise time. The code zeroes K = 1 step.
    """
    t_lo = static_number("zero_init", "t_lo", t_lo)
    if not 0 <= t_lo < 1:
        raise InputError(f"zero_init: need 0 <= t_lo < 1, got t_lo={t_lo!r}.")
    return ZeroInit(schedules.window(1.0, t_lo=t_lo, t_hi=1.0, outside=0.0))
