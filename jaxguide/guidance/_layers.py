"""Which blocks of a network a method changes, by name or by index."""

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxguide.errors import InputError
from jaxguide.guidance._network import Network
from jaxguide.paths import Array

# An index (negative from the end), a name, a range such as "2-5", or several of these.
Layers = int | str | tuple[int | str, ...]

NAMES = ("first", "middle", "last", "all")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def find_layers(name: str, layers: Layers, network: Network) -> tuple[int, ...]:
    """Indices of the blocks that are meant, sorted, none twice.

    Args:
        name: of the method, for the error.
        layers: an index (negative ones count from the end), "first", "middle" (the
            block depth // 2), "last", "all", a range with both ends such as "2-5", or
            a tuple of these; an empty one means no block.
        network: knows its depth.

    Raises:
        InputError: if the network has no blocks, or not this one.

    >>> find_layers("pag", ("first", "4-5", -1), Network(lambda x, t, c: x, depth=9))
    (0, 4, 5, 8)
    """
    depth = network.depth
    if not depth:
        raise InputError(
            f"{name}: need a network with blocks, got depth={depth!r}. Pass a "
            "Network(..., depth=...) whose predict takes the taps of its blocks."
        )
    named = {"first": [0], "middle": [depth // 2], "last": [depth - 1]}
    named["all"] = list(range(depth))
    chosen: set[int] = set()
    for word in _words(layers):
        indices = named[word] if word in named else _indices(name, word)
        if not all(-depth <= i < depth for i in indices):
            raise InputError(
                f"{name}: need layers inside -{depth}..{depth - 1}, got "
                f"layers={layers!r} for a network of depth={depth!r}."
            )
        chosen |= {i % depth for i in indices}
    return tuple(sorted(chosen))


def check_layers(name: str, layers: Layers) -> Layers:
    """The layers, hashable; raises InputError for what means no block anywhere."""
    for word in _words(layers):
        if word not in NAMES:
            _indices(name, word)
    return tuple(layers) if isinstance(layers, list) else layers


def where_chosen(
    layers: tuple[int, ...],
    network: Network,
    block_index: Array,
    chosen: Callable[..., Array],
    usual: Callable[..., Array],
    *operands: Array,
) -> Array:
    """`chosen(*operands)` in these blocks and `usual(*operands)` in the others.

    Only one of the two is computed, also where `block_index` is traced (as long as no
    `vmap` runs over it).
    """
    if len(layers) == network.depth:
        return chosen(*operands)
    # A table looked up at run time: the blocks are one scan, whose body is traced once
    # for all of them and sees the index as an array.
    mask = jnp.zeros(network.depth, bool).at[jnp.asarray(layers, jnp.int32)].set(True)
    return lax.cond(mask[block_index], chosen, usual, *operands)


def check_tap(name: str, network: Network, tap: str) -> None:
    """Raises InputError if `network.predict` cannot take the keyword `tap`."""
    # Checked before the call: the TypeError of the call would name neither the method
    # nor what the network lacks.
    try:
        parameters = inspect.signature(network.predict).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return
    if any(p.name == tap or p.kind is p.VAR_KEYWORD for p in parameters):
        return
    raise InputError(
        f"{name}: need a network whose predict takes {tap}=, got "
        f"predict({', '.join(p.name for p in parameters)}). Networks of "
        "jaxguide.models take it; the arguments of models.apply say what it does."
    )


def check_batch_axis(name: str, what: str, value: Array, shape: str) -> None:
    """Raises InputError unless what a network handed to a tap has all axes of
    `shape`, such as "[B, heads, N, head_dim]"."""
    # Without its batch axis the wrong axis would be taken for the tokens.
    if value.ndim != shape.count(",") + 1:
        raise InputError(
            f"{name}: need {what} {shape} from the network, got shape {value.shape}. "
            "A network of one sample adds an axis: value[None]."
        )


def token_grid(name: str, network: Network, count: int) -> tuple[int, int]:
    """(rows, columns) of `count` tokens: those of the network, else a square.

    Raises:
        InputError: if neither fits the count.
    """
    side = math.isqrt(count)
    rows, columns = network.tokens or (side, side)
    if rows * columns != count:
        raise InputError(
            f"{name}: need the grid of {count} tokens, got tokens={network.tokens!r}. "
            "Pass Network(..., tokens=(rows, columns))."
        )
    return rows, columns


def remaining_share(network: Network, dropped: int) -> float:
    """FLOPs of a forward pass without `dropped` blocks, relative to the full one."""
    if not network.flops:
        return 1.0
    return 1.0 - dropped * network.block_flops / network.flops


def _words(layers: Any) -> tuple[Any, ...]:
    return tuple(layers) if isinstance(layers, tuple | list) else (layers,)


def _indices(name: str, word: Any) -> list[int]:
    """The indices of one number or range."""
    # True is an int in Python, and never meant as block 1.
    if isinstance(word, int) and not isinstance(word, bool):
        return [word]
    match = _RANGE.fullmatch(word) if isinstance(word, str) else None
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if first <= last:
            return list(range(first, last + 1))
    raise InputError(
        f"{name}: need layers as an index, a range '2-5' or one of {NAMES}, "
        f"got {word!r}."
    )
