"""Parts of a chain that are live in some steps only, known as a bit while sampling.

`live` of a part is True or False where the host knows it for the whole program, else a
traced [] bool. A branch that only such parts need is called under `lax.cond`, and so is
the part itself: one program then serves every combination, with one copy of the network
for each branch. Without it there would be one program per combination.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxguide import paths
from jaxguide.guidance._base import Guided, View
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array

Live = bool | Array


def by_mode(
    modes: tuple[tuple[bool, ...], ...],
    which: Array,
    run: Callable[[tuple[Live, ...]], Any],
    *,
    shared: bool,
) -> Any:
    """`run(live)` for the one of `modes` that the traced number `which` [] names.

    Args:
        modes: which parts are live, once for every case that occurs.
        which: int [], the case.
        run: what to do; it is traced once for every mode, or once in all.
        shared: one program for all modes, in which the parts that differ are bits.
    """
    if len(modes) == 1:
        return run(modes[0])
    if not shared:
        return lax.switch(which, [functools.partial(run, one) for one in modes])
    # Parts that are live together share one bit: their branches may share a call.
    bits: dict[tuple[bool, ...], Live] = {}
    for column in zip(*modes, strict=True):
        if column not in bits:
            same = len(set(column)) == 1
            bits[column] = column[0] if same else jnp.asarray(column)[which]
    return run(tuple(bits[column] for column in zip(*modes, strict=True)))


def needed(bits: tuple[Live, ...]) -> tuple[Array, ...]:
    """The bits one of which has to be True; () for what is needed in any case."""
    if any(bit is True for bit in bits):
        return ()
    return tuple({id(bit): bit for bit in bits}.values())  # type: ignore[misc]


@custom_vmap
def anywhere(bit: Array) -> Array:
    """The bit; under `vmap` whether it is True for any element, the same for all.

    A `cond` on a bit of each element would be a selection, which computes both sides.
    """
    return bit


@anywhere.def_vmap
def _(axis_size: int, batched: list[bool], bit: Array) -> tuple[Array, bool]:
    del axis_size, batched
    return anywhere(bit.any(0)), False


def where_needed(bits: tuple[Array, ...], make: Callable[[], Any]) -> Any:
    """`make()` where one of `bits` is True, zeros at no cost elsewhere."""
    if not bits:
        return make()
    shapes = jax.eval_shape(make)
    # `cond`, not `where`: the latter computes both sides, and nothing would be saved.
    return lax.cond(
        anywhere(functools.reduce(jnp.logical_or, bits)),
        make,
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
    )


def apply_part(
    part: Transform, live: Live, guided: Guided, coupled: Live, state: Any, here: View
) -> tuple[Guided, Live, Any]:
    """One part of a chain: the next running result, whether its noise is one that a
    transform has set, and the next state.

    Zeros of branches that were not needed are read in no step in which they are zeros.
    """

    def run(live: bool) -> tuple[Guided, Live, Any]:
        given = settled(guided, coupled, here)
        out, new = part.apply(given, state, here, live=live)
        if out.noise is given.noise:
            return out._replace(noise=guided.noise), coupled, new
        return out, True, new

    if isinstance(live, bool):
        return run(live)
    noise = guided.noise
    if noise is None:
        noise = jax.eval_shape(lambda: run(True)[0]).noise

    def either(live: bool) -> tuple[Guided, Array, Any]:
        # Both sides of a `cond` have one structure, so also a noise that is not set.
        out, set_now, new = run(live)
        kept = out.noise
        if noise is not None:
            kept = jnp.zeros(noise.shape, noise.dtype) if kept is None else kept
            kept = kept.astype(noise.dtype)
        prediction = out.prediction.astype(guided.prediction.dtype)
        return Guided(prediction, kept), jnp.asarray(set_now), new

    out, set_now, new = lax.cond(live, lambda: either(True), lambda: either(False))
    certain = noise is None or coupled is True
    return out, coupled if certain else set_now, new


def settled(guided: Guided, coupled: Live, here: View) -> Guided:
    """The running result with the noise that holds: None, set, or known by now."""
    if isinstance(coupled, bool):
        return guided
    (prediction, noise), step = guided, here.step
    assert noise is not None  # zeros where it is not set, see `either`

    def following() -> Array:
        found = paths.to_pair(here.network.kind, prediction, step.x, step.node)[1]
        return found.astype(noise.dtype)

    return Guided(prediction, lax.cond(coupled, lambda: noise, following))
