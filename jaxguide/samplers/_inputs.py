"""What `generate`, `sweep`, `invert` and their like were given: the right kinds.

A function in place of a network, or a sampler that was not called, would fail deep
inside with a message that names neither.
"""

from typing import Any

import numpy as np

from jaxguide.errors import InputError
from jaxguide.guidance._arguments import check_key, check_mapping, check_network
from jaxguide.guidance._checks import shown, uncalled
from jaxguide.guidance._step_checks import check_state
from jaxguide.samplers._base import Sampler


def check_networks(name: str, network: Any, networks: Any = None) -> None:
    """Refuses what is no network, or no dict of them.

    Raises:
        InputError: so does every function here; it begins with `name`.
    """
    check_network(name, "network", network)
    check_mapping(name, "networks", networks, "weak")
    for key, one in (networks or {}).items():
        check_network(name, f"networks[{key!r}]", one)


def check_sampler(name: str, sampler: Any) -> None:
    """Refuses what is no sampler, such as `euler` for `euler()`."""
    if isinstance(sampler, Sampler):
        return
    called = uncalled(sampler)
    advice = f"Call it: {called}()." if called else "Pass sampler=jg.euler()."
    raise InputError(f"{name}: need a sampler, got sampler={shown(sampler)}. {advice}")


def check_arrays(
    name: str,
    x: Any,
    conds: Any = None,
    key: Any = None,
    sample_keys: Any = None,
    progress: Any = None,
) -> None:
    """Refuses states, conditions, keys and callbacks of the wrong kind."""
    check_state(x)
    check_mapping(name, "conds", conds, "null")
    check_key(name, "key", key, "jax.random.key(0)")
    example = "jg.sample_keys(seed, jnp.arange(batch))"
    check_key(name, "sample_keys", sample_keys, example)
    if sample_keys is not None and np.shape(sample_keys)[:1] != x.shape[:1]:
        raise InputError(
            f"{name}: need one key per sample in sample_keys, got shape "
            f"{np.shape(sample_keys)} for x.shape={x.shape}. Pass "
            f"sample_keys={example}."
        )
    if progress is not None and not callable(progress):
        raise InputError(
            f"{name}: need a function for progress, got progress={shown(progress)}."
        )
