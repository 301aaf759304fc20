"""What can be known to fail is found before a run writes anything."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxguide import data, losses
from jaxguide.errors import InputError, NonFiniteError, UnwritableError
from jaxguide.runtime import hosts
from jaxguide.train import parallel
from jaxguide.train.checkpoints import facts as saved_facts
from jaxguide.train.experiment import Experiment, LoopConfig
from jaxguide.train.log import writers_of_clu
from jaxguide.train.step import Inputs, TrainState, init_state

FOLDERS = ("checkpoints", "samples", "tensorboard")
FILES = ("config.json", "metrics.jsonl", "run.lock", "weights.safetensors")


def before_writing(experiment: Experiment, loop: LoopConfig) -> dict:
    """Looks at everything that a run is made of; writes nothing.

    Returns:
        The facts that stand beside its checkpoints.

    Raises:
        InputError: if the folder, the data, the loss or an older checkpoint in the
            folder does not fit.
    """
    parallel.check_batch(
        experiment.strategy, experiment.batch_size, experiment.accumulate
    )
    if loop.tensorboard:
        writers_of_clu()
    check_places(loop.folder)
    facts = experiment.facts()
    _same_everywhere(facts)
    found = saved_facts.newest(loop.folder / "checkpoints")
    if found:
        saved_facts.compare(found[1], facts, found[0], experiment.settings)
    start = found[0] if found else 0
    if loop.steps < start:
        raise InputError(
            f"run: need steps >= {start}, those of the newest checkpoint, got "
            f"steps={loop.steps!r}. Use more, or another folder."
        )
    if start < loop.steps:
        batch = read_share(experiment, start)
        _trace(experiment, batch)
    return facts


def check_places(folder: Path) -> None:
    """Raises UnwritableError if something is in the way of what a run writes."""
    parent = folder
    while not (parent.exists() or parent.is_symlink()) and parent != parent.parent:
        parent = parent.parent
    places = [(parent, True)]
    places += [(folder / name, True) for name in FOLDERS]
    places += [(folder / name, False) for name in FILES]
    for place, is_folder in places:
        reason = _why_not(place, is_folder)
        if reason:
            raise UnwritableError(
                f"run: need files that can be written, got {str(place)!r}: {reason}. "
                "Make room or choose another folder."
            )


def _why_not(place: Path, is_folder: bool) -> str:
    if not (place.exists() or place.is_symlink()):
        return ""
    if place.is_dir() != is_folder:
        return "Not a directory" if is_folder else "Is a directory"
    need = os.W_OK | os.X_OK if is_folder else os.W_OK
    return "" if os.access(place, need) else "Permission denied"


def _same_everywhere(facts: dict) -> None:
    """Raises InputError in every process unless all have the same facts."""
    if jax.process_count() == 1:
        return
    text = json.dumps(facts, sort_keys=True).encode()
    mine = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    every = np.asarray(multihost_utils.process_allgather(mine))
    other = np.flatnonzero((every != every[0]).any(axis=1)).tolist()
    if other:
        raise InputError(
            "run: need the same data in every process, got others than process 0 has "
            f"in process_id={other!r}. Copy the data of process 0 to the others."
        )


def read_share(experiment: Experiment, step: int) -> data.Batch:
    """This process's share of the batch of a step.

    Raises:
        NonFiniteError: if an example is not finite.
    """
    x0, label = data.batch(
        experiment.dataset,
        step,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        flip=experiment.flip,
        share=hosts.share(),
    )
    check_examples("run", x0, label)
    return x0, label


def check_examples(owner: str, x0: np.ndarray, label: np.ndarray) -> None:
    """Raises NonFiniteError if one of some examples is not finite."""
    finite = np.isfinite(x0).all(axis=tuple(range(1, x0.ndim)))
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFiniteError(
            f"{owner}: need finite data, got {int((~finite).sum())} of {len(x0)} "
            f"examples with NaN or infinite values, the first of label="
            f"{int(label[first])}. Repair or remove them."
        )


def make_state(experiment: Experiment, key: jax.Array) -> TrainState:
    """The state before the first update."""
    return init_state(
        experiment.init_params(key),
        experiment.optimizer,
        averages=len(experiment.ema),
        tuned=experiment.tuned,
    )


def _trace(experiment: Experiment, batch: data.Batch) -> None:
    """Lets the loss see the shapes of a batch, so that it refuses what it will refuse.

    Raises:
        InputError: what the loss says, or if it returns another shape.
    """

    def value(key: jax.Array, x0: jax.Array, label: jax.Array) -> Any:
        state = make_state(experiment, key)
        drawn = losses.draws(key, len(label))
        inputs = Inputs(state.ema_params, (x0, label), drawn, state.step, state.tuned)
        return experiment.loss(state.params, inputs)

    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), batch)
    key = jax.eval_shape(functools.partial(jax.random.key, 0))
    found = jax.eval_shape(value, key, *like)
    wanted = jnp.shape(batch[1])
    if getattr(found, "shape", None) != wanted:
        raise InputError(
            f"run: need a loss that returns one number per example, {list(wanted)}, "
            f"got loss={found!r}. Average over all axes but the first."
        )
