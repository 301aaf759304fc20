"""Checkpoints of a training state, by Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run: a folder with one sub-folder per step.

    Saving happens in the background, so use it as a context manager: leaving the
    block waits until everything is on disk.

    Args:
        folder: made if missing; relative paths are resolved.
        keep: newest checkpoints to keep, >= 1.

    >>> with Checkpoints("outputs/demo/checkpoints") as checkpoints:  # doctest: +SKIP
    ...     checkpoints.save(100, state, {"dataset": "digits"})
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"Checkpoints: need keep >= 1, got keep={keep!r}. Use 1.")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        # Orbax writes nothing, without a word, when given a relative path.
        path = Path(folder).expanduser().resolve()
        self._manager = ocp.CheckpointManager(path, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for running saves and lets go of the folder."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict) -> None:
        """Starts saving a tree of arrays and a JSON-able dict under `step`.

        The arrays are copied before this returns, so they may be donated next.
        A step that is already saved is left alone.
        """
        if step in self._manager.all_steps():
            return
        # On CPU Orbax may read the live buffers while the next step overwrites them.
        held = jax.tree.map(jnp.copy, state)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(held), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict]:
        """Reads a checkpoint back.

        Args:
            like: a state, or a tree of `jax.ShapeDtypeStruct`, of the same structure;
                leaves with a sharding are placed by it.
            step: which one; None takes the newest.

        Returns:
            `(state, meta)`.

        Raises:
            ValueError: if there is no such checkpoint.
        """
        step = self.latest_step() if step is None else step
        if step is None or step not in self._manager.all_steps():
            raise ValueError(
                f"Checkpoints.restore: need a saved step, got step={step!r} in "
                f"{self._manager.directory}. "
                f"Saved: {list(self._manager.all_steps())!r}."
            )
        abstract = jax.tree.map(_abstract, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["meta"]


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
    )
