"""Guidance away from a network whose blocks are skipped or shuffled: STG, TPG."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxguide.errors import InputError
from jaxguide.guidance._attention import IdentityAttention
from jaxguide.guidance._base import RAW, Branch, Change, View
from jaxguide.guidance._contrast import Contrast, Weight, contrast
from jaxguide.guidance._layers import (
    Layers,
    check_batch_axis,
    check_layers,
    check_tap,
    find_layers,
    remaining_share,
    where_chosen,
)
from jaxguide.guidance._network import Network
from jaxguide.paths import Array


@dataclasses.dataclass(frozen=True)
class SkippedBlocks(Change):
    """Leaves out fixed blocks altogether."""

    layers: Layers
    name: str = "stg"

    def taps(self, here: View) -> dict[str, Any]:
        """`keep_blocks`, int32, the blocks that run."""
        check_tap(self.name, here.called, "keep_blocks")
        skipped = find_layers(self.name, self.layers, here.called)
        kept = [i for i in range(here.called.depth) if i not in skipped]
        return {"keep_blocks": jnp.asarray(kept, jnp.int32)}

    def share(self, network: Network) -> float:
        """FLOPs of the shortened pass, relative to the full one."""
        dropped = len(find_layers(self.name, self.layers, network))
        return remaining_share(network, dropped)


@dataclasses.dataclass(frozen=True)
class SkippedPart(Change):
    """Leaves out the attention or the MLP of chosen blocks."""

    layers: Layers
    part: str
    name: str = "stg"

    def taps(self, here: View) -> dict[str, Any]:
        """`block`, a function `(run, tokens, block_index) -> tokens`."""
        check_tap(self.name, here.called, "block")
        layers = find_layers(self.name, self.layers, here.called)

        def block(run: Any, tokens: Array, block_index: Array) -> Array:
            def shorter(tokens: Array) -> Array:
                return run(tokens, **{self.part: False})

            return where_chosen(layers, here.called, block_index, shorter, run, tokens)

        return {"block": block}


@dataclasses.dataclass(frozen=True)
class ShuffledTokens(Change):
    """Gives every token the update of another one, in chosen blocks."""

    layers: Layers
    name: str = "tpg"

    own = True

    def taps(self, here: View) -> dict[str, Any]:
        """`block`, a function `(run, tokens, block_index) -> tokens`."""
        check_tap(self.name, here.called, "block")
        layers = find_layers(self.name, self.layers, here.called)
        key = here.key(self.name)

        def block(run: Any, tokens: Array, block_index: Array) -> Array:
            check_batch_axis(self.name, "tokens", tokens, "[B, N, width]")

            def shuffled(tokens: Array) -> Array:
                order = self.order(key, block_index, tokens.shape[1])
                moved = jnp.take(tokens, order, axis=1)
                # The update alone is shuffled; the residual stream keeps its order.
                return tokens + (run(moved) - moved)

            return where_chosen(layers, here.called, block_index, shuffled, run, tokens)

        return {"block": block}

    def order(self, key: Array, block_index: Array, count: int) -> Array:
        """Where each token's update comes from, int32 [count], for all samples."""
        return jax.random.permutation(jax.random.fold_in(key, block_index), count)


SKIPS = ("block", "attention", "mlp", "scores")


def stg(
    weight: Weight = 1.0,
    *,
    layers: Layers = "middle",
    skip: str = "block",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Spatio-temporal skip guidance (STG): away from the network without some layers.

        guided + weight(t) * (raw - skipped)

    A skipped block is not computed. S2 is the same with a fresh random choice of blocks
    in every step. Skip-layer guidance (SLG), as Stable Diffusion 3.5 medium uses it, is
    `stg(2.8, layers="7-9", t_lo=0.8, t_hi=0.99)`.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        layers: which blocks: an index, "first", "middle", "last", "all", a range "2-5",
            or a tuple of these.
        skip: what is left out of them: "block", its "attention" or "mlp" (with the
            residual kept), or the attention "scores" (then the output is the values,
            as in `pag`).
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a network that takes `keep_blocks`, `block`
        or `attention`, in the order of `skip`.

    Raises:
        InputError: for an unknown `skip`, bad layers, or as `contrast`; at the first
            trace if the network has no such block or does not take the tap.

    NFE: +1 inside the window; "block" at the FLOPs of the blocks that run, the others
        counted as full evaluations.
    Source: Hyung et al. 2024, arXiv:2411.18664; weight 1 with "block" (STG-R), 2 with
        "scores" (STG-A), one block; read against junhahyung/STGuidance @df04da0.
    Differs from the source: its optional rescaling is `rescale`, to be chained behind.
        diffusers agrees for "block" and "scores" beside CFG (see `pag`); for attention
        or MLP alone its hooks replace the layer by the identity inside the residual
        branch, where here the branch is left out.
    """
    taps = {
        "block": lambda: SkippedBlocks(layers),
        "attention": lambda: SkippedPart(layers, "attention"),
        "mlp": lambda: SkippedPart(layers, "mlp"),
        "scores": lambda: IdentityAttention(layers, "stg"),
    }
    if skip not in SKIPS:
        raise InputError(f"stg: need skip in {SKIPS}, got skip={skip!r}.")
    layers = check_layers("stg", layers)
    away = Branch(change=taps[skip]()) if layers != () else RAW
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, name="stg")


def tpg(
    weight: Weight = 3.0,
    *,
    layers: Layers = "all",
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> Contrast:
    """Token perturbation guidance (TPG): away from a network with shuffled tokens.

        guided + weight(t) * (raw - shuffled)
        shuffled, in a block:  tokens + (block(P tokens) - P tokens)

    P is a random order of the tokens, one for the whole batch, fresh for every block
    and step. The residual stream stays in place, so every token gets another one's
    update.

    Args:
        weight: dimensionless, neutral at 0; number, array [B], function, `Schedule`.
        layers: which blocks: an index, "first", "middle", "last", "all", a range "2-5",
            or a tuple of these.
        t_lo, t_hi: window `[t_lo, t_hi)` in noise time; neutral outside.

    Returns:
        A transform without state; it needs a network that takes `block`, and a key.

    Raises:
        InputError: for bad layers, or as `contrast`; at the first trace if the network
            has no such block or does not take `block`, or if there is no key.

    NFE: +1 inside the window.
    Source: Rajabi et al. 2025, arXiv:2506.10036; weight 3; read against
        TaatiTeam/Token-Perturbation-Guidance @508f260.
    Differs from the source: there the tokens of a U-Net's transformer block are
        shuffled and not put back, inside an outer residual connection that keeps its
        order. The blocks of a DiT do not know where a token is, so shuffling them and
        putting them back changes nothing, and not putting them back only shuffles the
        patches of the output; the residual stream plays the outer connection here.
    """
    layers = check_layers("tpg", layers)
    away = Branch(change=ShuffledTokens(layers)) if layers != () else RAW
    return contrast(weight, away, t_lo=t_lo, t_hi=t_hi, name="tpg")
