"""S2-Guidance: away from sub-networks with a few transformer blocks left out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._base import Branch, Change, View
from jaxguide.guidance._checks import is_whole, static_number
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._layers import remaining_share
from jaxguide.guidance._network import Network


@dataclasses.dataclass(frozen=True)
class DropBlocks(Change):
    """Leaves out a random choice of blocks, drawn anew at every step.

    The network gets `keep_blocks`, the indices [depth - number] of the blocks that run,
    in order; the length is static, the choice traced, shared by the batch.
    """

    ratio: float
    exclude: tuple[int, ...] = (0,)

    name = "s2"
    own = True

    def number(self, network: Network) -> int:
        """How many blocks are left out: at least 1, never an excluded one."""
        allowed = len(self.allowed(network))
        return min(max(1, round(self.ratio * network.depth)), allowed)

    def allowed(self, network: Network) -> list[int]:
        """Indices of the blocks that may be left out.

        Raises:
            InputError: if the network has no such block, or none of an excluded index.
        """
        depth = network.depth
        beyond = [i for i in self.exclude if not -depth <= i < depth]
        if depth and beyond:
            raise InputError(
                f"s2: need exclude inside -{depth}..{depth - 1}, got "
                f"exclude={self.exclude!r} for a network of depth={depth!r}."
            )
        excluded = {i % depth for i in self.exclude} if depth else set()
        allowed = [i for i in range(depth) if i not in excluded]
        if not allowed:
            raise InputError(
                "s2: need a network with blocks to drop, got "
                f"depth={network.depth!r}, exclude={self.exclude!r}. "
                "Pass a Network with depth=..., whose predict takes keep_blocks=."
            )
        return allowed

    def taps(self, here: View) -> dict[str, Any]:
        """`keep_blocks`, int32 [depth - number]."""
        allowed = jnp.asarray(self.allowed(here.called), jnp.int32)
        number = self.number(here.called)
        # Shapes are static, only the choice is drawn: a new draw compiles nothing.
        drop = jax.random.choice(here.key("s2"), allowed, (number,), replace=False)
        keep = jnp.ones(here.called.depth, bool).at[drop].set(False)
        (kept,) = jnp.nonzero(keep, size=here.called.depth - number)
        return {"keep_blocks": kept.astype(jnp.int32)}

    def share(self, network: Network) -> float:
        """FLOPs of the shortened pass, relative to the full one."""
        return remaining_share(network, self.number(network))


def s2(
    weight: Weight,
    *,
    drop: float = 0.1,
    exclude: tuple[int, ...] = (0,),
    num_masks: int = 1,
    t_lo: float = 0.1,
    t_hi: float = 0.9,
) -> Contrast:
    """Stochastic self-guidance (S2): away from the network with blocks left out.

        guided + weight(t) * (raw - mean_m dropped_m)

    One fresh choice of blocks per step and mask, shared by the batch; dropped blocks
    are not computed. `num_masks > 1` is the paper's naive S2.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        drop: share of all blocks left out, in (0, 1); at least one block is.
        exclude: indices of blocks that always run (negative ones count from the end).
        num_masks: independent choices per step, averaged.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; the default is the paper's
            central 80 %.

    Returns:
        A transform without state; it needs a network with `depth` and a key.

    Raises:
        InputError: if `drop`, `num_masks` or the window is out of range; at the first
            trace if the network has no blocks to drop or there is no key.

    NFE: +num_masks inside the window, each at the FLOPs of the blocks that run.
    Source: Chen et al. 2025, S2-Guidance, arXiv:2508.12880, Eq. 4 and Algorithm 1
        (weight 0.25 beside CFG). No official code was published.
    Differs from the source: the appendix omits the re-centring `+ weight raw`; that
        form does not sum to 1 and is not offered. The excluded set is "key blocks"
        in the paper, of which only the first is named.
    """
    drop = static_number("s2", "drop", drop)
    if not 0 < drop < 1:
        raise InputError(
            f"s2: need 0 < drop < 1 (a share of blocks), got drop={drop!r}."
        )
    if not is_whole(num_masks) or num_masks < 1:
        raise InputError(f"s2: need an integer num_masks >= 1, got {num_masks!r}.")
    if not isinstance(exclude, tuple | list) or not all(map(is_whole, exclude)):
        raise InputError(
            f"s2: need a tuple of block indices, got exclude={exclude!r}. The first "
            "block is exclude=(0,)."
        )
    tap = DropBlocks(float(drop), tuple(exclude))
    away = tuple(Branch(change=tap, draw=i) for i in range(num_masks))
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, name="s2")
