"""Where in a file the network begins: one rule for what stands before its names.

A name is a path of words between dots. Words of wrappers are dropped wherever they
stand. What is left may begin with words that say whose weights these are, such as
"ema.model."; they are the **root** of an array. The arrays of one root are the network:
of that root which looks like a published layout, or of the only one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxguide.convert.stored import Entry
from jaxguide.errors import InputError
from jaxguide.models import looks
from jaxguide.models.looks import few

# What torch.nn.DataParallel, torch.compile, FSDP and checkpointing put into names.
WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
# Words that say whose weights these are: of trainers and of averages.
OWNERS = frozenset(
    {
        "ema",
        "ema_model",
        "model",
        "model_ema",
        "net",
        "network",
        "online_model",
        "state_dict",
        "transformer",
    }
)
# A training checkpoint holds one state dict per name; the first of these is taken.
KEYS = ("ema", "state_dict", "model")

Root = tuple[str, ...]


class Network(NamedTuple):
    """The arrays of one network in a file.

    Attributes:
        names: their names in the file, by what they are called without root.
        cut: what was cut, as in "ema.model."; "" for nothing.
        key: the word of `KEYS` that was chosen, or what was asked for.
        counters: names of single numbers, such as of steps, which are no weights.
        others: names of arrays that stand elsewhere.
    """

    names: dict[str, str]
    cut: str
    key: str
    counters: tuple[str, ...]
    others: tuple[str, ...]


def find(
    path: Path,
    entries: Mapping[str, Entry],
    *,
    key: str = "",
    prefix: str = "",
    nested: Sequence[str] = (),
) -> Network:
    """The network in a file.

    Args:
        path: of the file, for errors.
        entries: all arrays, by their names in the file.
        key: the state dict or root to take; "" takes the only one, or the first of
            `KEYS` where all are state dicts of one training checkpoint.
        prefix: what stands before the names, if it is not known here.
        nested: names of the state dicts in the file.

    Raises:
        InputError: if there are no arrays, several networks, or none under `key` or
            `prefix`, or two arrays get one name.
    """
    counters = tuple(
        name for name, entry in entries.items() if _is_counter(name, entry)
    )
    arrays = [name for name in entries if name not in set(counters)]
    inside = [name for name in arrays if name.startswith(prefix)]
    if not inside:
        begins = f" under prefix={prefix!r}" if prefix else ""
        raise InputError(
            f"open_tensors: need named arrays{begins}, got none in path={str(path)!r}"
            f"{f', which has {few(arrays)}' if arrays else ''}. Save a state dict."
        )
    groups: dict[Root, dict[str, str]] = {}
    for name in inside:
        root, rest = _split(name.removeprefix(prefix), OWNERS.union(nested))
        twin = groups.setdefault(root, {}).setdefault(rest, name)
        if twin != name:
            raise InputError(
                f"open_tensors: need one array {rest}, got {twin} and {name} in "
                f"path={str(path)!r}. Choose one with prefix."
            )
    root = _chosen(path, groups, key, nested)
    taken = set(groups[root].values())
    return Network(
        names=groups[root],
        cut=_cut(groups[root], prefix, root),
        key=key or next((word for word in root if word in nested), ""),
        counters=counters,
        others=tuple(name for name in arrays if name not in taken),
    )


def about(network: Network) -> str:
    """A line of what was cut, what was passed over, for people; "" for nothing."""
    told = []
    if network.cut:
        told.append(f"cut {network.cut!r} before the names")
    if network.counters:
        told.append(f"no weights: {few(network.counters)}")
    if network.others:
        told.append(f"left out {len(network.others)} arrays: {few(network.others)}")
    return "; ".join(told)


def _is_counter(name: str, entry: Entry) -> bool:
    """Whether an array is a single number beside the weights.

    A scale of quantised weights is a single number too, but no counter.
    """
    single = entry.shape == () or (entry.shape == (1,) and "float" not in entry.dtype)
    return single and "scale" not in name.rpartition(".")[2]


def _split(name: str, owners: frozenset[str]) -> tuple[Root, str]:
    """Root and rest of a name, without the words of wrappers.

    >>> _split("ema.module.blocks.0._orig_mod.weight", OWNERS)
    (('ema',), 'blocks.0.weight')
    """
    *before, last = name.split(".")
    words = [word for word in before if word not in WRAPPERS]
    count = next((i for i, w in enumerate(words) if w not in owners), len(words))
    return tuple(words[:count]), ".".join([*words[count:], last])


def _chosen(
    path: Path,
    groups: Mapping[Root, Mapping[str, str]],
    key: str,
    nested: Sequence[str],
) -> Root:
    """The root of the network that is wanted."""
    fitting = [root for root, names in groups.items() if looks.published_as(names)]
    roots = fitting or list(groups)
    if key:
        matching = [root for root in roots if _is_called(root, key)]
        # An exact name counts more than a part of one.
        roots = [root for root in matching if ".".join(root) == key] or matching
    if len(roots) == 1:
        return roots[0]
    known = sorted(".".join(root) for root in fitting or groups)
    if not roots:
        keys = [name for name in known if name] or "none, for a bare file"
        raise InputError(
            f"open_tensors: need a key of {keys}, got key={key!r} in {path.name}. "
            "Take another key."
        )
    # The documented layout of a training checkpoint: its average is taken.
    firsts = {root[0] for root in roots if root}
    if len(firsts) == len(roots) and firsts <= {*nested} & {*KEYS}:
        return min(roots, key=lambda root: KEYS.index(root[0]))
    average = next((name for name in known if "ema" in name), known[-1])
    raise InputError(
        f"open_tensors: need one network, got those under {known} in "
        f"path={str(path)!r}. Choose one with --key, such as --key {average}."
    )


def _is_called(root: Root, key: str) -> bool:
    return key in root or key == ".".join(root)


def _cut(names: Mapping[str, str], prefix: str, root: Root) -> str:
    """What stood before every name, as the file has it; else the root."""
    before = {
        name.removesuffix(rest) for rest, name in names.items() if name.endswith(rest)
    }
    whole = len(before) == 1 and all(n.endswith(r) for r, n in names.items())
    return before.pop() if whole else prefix + "".join(f"{word}." for word in root)
