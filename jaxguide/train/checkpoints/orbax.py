"""Checkpoints of a training state, by Orbax.

A checkpoint appears on disk as a whole or not at all. Beside the state it holds one sum
per array, a function of all its bits, that does not depend on how the array is cut over
devices: what comes back is what was saved, or the checkpoint counts as unreadable.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from jaxguide.errors import InputError, UnwritableError
from jaxguide.runtime import exits
from jaxguide.train.checkpoints import facts, reading
from jaxguide.train.checkpoints.sums import bit_sums


class Checkpoints:
    """The checkpoints of one run: a folder with one sub-folder per step.

    Saving happens in the background, so use it as a context manager: leaving the
    block waits until everything is on disk, unless a KeyboardInterrupt leaves it.
    In a run of several processes all of them make every call, on a folder that all
    see. A folder belongs to one run at a time: opening it clears what an unfinished
    save has left.

    Args:
        folder: made if missing; relative paths are resolved.
        keep: newest checkpoints to keep, >= 1; with 1 there is none to go back to if
            it is damaged. The disk needs room for one more while it is written.
        keep_best: further checkpoints to keep, those with the lowest `best_by`.
        best_by: name of a number that is saved with a checkpoint.

    Raises:
        InputError: if a number is out of range.
        OSError: if the folder cannot be made.

    >>> with Checkpoints("outputs/demo/checkpoints") as checkpoints:  # doctest: +SKIP
    ...     checkpoints.save(100, state, {"dataset": "digits"})
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 2,
        keep_best: int = 0,
        best_by: str = "loss",
    ):
        if keep < 1:
            raise InputError(f"Checkpoints: need keep >= 1, got keep={keep!r}. Use 1.")
        if keep_best < 0:
            raise InputError(
                f"Checkpoints: need keep_best >= 0, got keep_best={keep_best!r}. Use 0."
            )
        # Orbax writes nothing, without a word, when given a relative path.
        self._folder = epath.Path(folder).expanduser().resolve()
        self._best_by = best_by
        self._kept = _Kept(keep, keep_best)
        self._unchecked = False
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._kept, cleanup_tmp_directories=True
        )
        self._manager: Any = None
        with self._writing(), contextlib.ExitStack() as stack:
            # Until `close`: saves fail in threads of Orbax, which print.
            stack.enter_context(reading.muffled())
            self._manager = ocp.CheckpointManager(self._folder, options=options)
            self._open = stack.pop_all()
        # A resumed run compares new checkpoints with the best ones of before.
        for step in self.steps():
            self._kept.note(step, self._number(step))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, Exception):
            with contextlib.suppress(OSError):  # the first failure is the one to raise
                self.close()

    def close(self) -> None:
        """Waits for running saves and lets go of the folder.

        Raises:
            OSError: if the last save failed.
        """
        with self._writing():
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()
                self._open.close()

    def steps(self) -> list[int]:
        """Steps that are saved, or being saved, in rising order."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Step with the lowest `best_by`, the newest of equal ones, or None."""
        return next(iter(self._kept.best(self.steps(), 1)), None)

    def save(
        self,
        step: int,
        state: Any,
        meta: dict,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts saving a tree of arrays and a JSON-able dict under `step`.

        The arrays may be donated as soon as this returns. A step that is already
        saved is left alone. Old checkpoints go once the new one is complete.

        Args:
            step: of the state.
            state: arrays; they may be cut over devices and processes.
            meta: facts to store with it.
            metrics: numbers at this step; `best_by` is looked up in them.

        Raises:
            OSError: if this or the save before had no room or no right to write.
        """
        if step in self.steps():
            return
        metrics = metrics or {}
        record = {"facts": meta, "metrics": metrics, "sums": bit_sums(state)}
        # First: while saving, Orbax calls `should_preserve`, which needs the number.
        self._kept.note(step, metrics.get(self._best_by))
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(jax.tree.map(_held, state)),
                    meta=ocp.args.JsonSave(record),
                ),
                force=True,  # whatever interval Orbax thinks right
            )
        self._unchecked = True

    def check(self) -> None:
        """Raises what the last save met in the background; does not wait for it.

        Raises:
            OSError: if it had no room or no right to write.
        """
        # Not `check_for_errors`: it takes the error away from the thread that deletes
        # old checkpoints, which then believes that the new one is complete.
        if self._unchecked and not self._manager.is_saving_in_progress():
            self._unchecked = False
            with self._writing():
                self._manager.wait_until_finished()

    def restore(
        self, like: Any, step: int | None = None, *, expect: dict | None = None
    ) -> tuple[Any, dict]:
        """Reads a checkpoint back.

        A damaged newest checkpoint is passed over with a warning; its folder is kept
        under a name that ends in `.unreadable`. If none can be read, all stay in place.

        Args:
            like: a state, or a tree of `jax.ShapeDtypeStruct`, of the same structure;
                leaves with a sharding are placed by it.
            step: which one; None takes the newest that can be read.
            expect: facts that the checkpoint must agree with, as far as it has them.

        Returns:
            `(state, meta)`.

        Raises:
            InputError: if there is no such checkpoint, none can be read, or its facts
                are others.
        """
        saved = self.steps()
        if not saved or step not in (None, *saved):
            raise InputError(
                f"Checkpoints.restore: need a saved step, got step={step!r} in "
                f"{self._folder}. Saved: {saved!r}."
            )
        abstract = jax.tree.map(_abstract, like)
        damaged: dict[int, str] = {}
        for candidate in reversed(saved) if step is None else [step]:
            try:
                found = self._read(candidate, abstract, expect or {})
            except reading.UnreadableError as error:
                damaged[candidate] = str(error)
                continue
            if damaged:
                self._set_aside(damaged, candidate)
            return found
        raise InputError(
            "Checkpoints.restore: need a checkpoint that can be read, got "
            f"{_listed(damaged)} in {self._folder}. Nothing was changed there; put a "
            "good copy in place, or use another folder."
        )

    def _read(self, step: int, like: Any, expect: dict) -> tuple[Any, dict]:
        """The checkpoint of a step; all processes succeed, or all raise."""
        path, reason, state, record = self._folder / str(step), "", None, {}
        with reading.quiet():
            try:
                record = reading.record(path)
                facts.compare(record["facts"], expect, step)
                state = reading.arrays(path, like)
            except InputError:
                raise
            except Exception as error:  # Orbax and TensorStore raise what they please
                reason = reading.short(error)
        # What follows computes on all processes at once: one of them that went another
        # way here would leave the others waiting for it.
        if not _everywhere(not reason):
            raise reading.UnreadableError(reason or "another process cannot read it")
        if bit_sums(state) != record["sums"]:
            raise reading.UnreadableError("its values are not those that were saved")
        return state, record["facts"]

    def _set_aside(self, damaged: dict[int, str], good: int) -> None:
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if jax.process_index() == 0:
            for step in damaged:
                source = self._folder / str(step)
                target = self._folder / f"{step}.unreadable"
                while target.exists():
                    target = target.with_name(f"{target.name}+")
                source.rename(target)
            print(
                f"Checkpoints.restore: cannot read {_listed(damaged)} in "
                f"{self._folder}; going back to step {good}. What is damaged is kept "
                "as *.unreadable.",
                file=sys.stderr,
            )
        _everywhere(True)  # no process goes on before the folders are renamed
        self._manager.reload()  # its list of steps was read at the start

    def _number(self, step: int) -> float | None:
        """`best_by` of a saved step, if it can be read."""
        with contextlib.suppress(Exception):
            return reading.record(self._folder / str(step))["metrics"].get(
                self._best_by
            )
        return None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises one line where a folder cannot be written; other errors pass."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = exits.why_unwritable(error)
            if reason is None:
                raise
            raise UnwritableError(
                "Checkpoints: need a folder that can be written, got "
                f"folder={str(self._folder)!r}: {reason}. Make room or use "
                f"another folder; steps that are safe: {self.steps()!r}."
            ) from error


class _Kept:
    """Which checkpoints Orbax leaves: the newest and the best."""

    def __init__(self, newest: int, best: int):
        self._newest, self._best = newest, best
        self._numbers: dict[int, float | None] = {}

    def note(self, step: int, number: float | None) -> None:
        """Remembers how good a step is; less is better, None and NaN never the best."""
        self._numbers[step] = None if number is None or math.isnan(number) else number

    def best(self, steps: Sequence[int], count: int) -> list[int]:
        """The best of these steps, the best one first."""
        known = [step for step in steps if self._numbers.get(step) is not None]
        return sorted(known, key=lambda step: (self._numbers[step], -step))[:count]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list:
        """One bool per checkpoint: what Orbax calls on a preservation policy."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self._newest :], *self.best(steps, self._best)}
        return [step in kept for step in steps]


def _everywhere(true: bool) -> bool:
    """Whether `true` holds on every process; all of them have to call it."""
    if jax.process_count() == 1:
        return true
    return bool(multihost_utils.process_allgather(np.array(true)).all())


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
    )


def _held(leaf: Any) -> Any:
    """On CPU Orbax may read the live buffers while the next step overwrites them."""
    on_cpu = all(d.platform == "cpu" for d in jnp.asarray(leaf).devices())
    return jnp.copy(leaf) if on_cpu else leaf


def _listed(reasons: dict[int, str]) -> str:
    return ", ".join(f"step {step} ({reason})" for step, reason in reasons.items())
