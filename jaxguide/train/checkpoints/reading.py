"""Reading one checkpoint of Orbax, and telling why it cannot be read."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath


class UnreadableError(Exception):
    """Why a checkpoint cannot be read."""


def record(path: epath.Path) -> dict:
    """What `save` wrote beside the arrays."""
    return json.loads((path / "meta" / "metadata").read_text())


def arrays(path: epath.Path, like: Any) -> Any:
    """The state of a checkpoint, read without waiting for other processes.

    A process that fails must not leave the others waiting for it.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"read{me}"
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        state=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
    )
    reader = ocp.Checkpointer(handler, multiprocessing_options=alone)
    with reader:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return reader.restore(path, args=args)["state"]


@contextlib.contextmanager
def muffled() -> Iterator[None]:
    """Drops what the threads of a failing save print: `Checkpoints` raises it."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def not_of_orbax(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or "orbax" not in record.pathname

    def not_of_tensorstore(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    logger.addFilter(not_of_orbax)
    sys.unraisablehook = not_of_tensorstore
    try:
        yield
    finally:
        logger.removeFilter(not_of_orbax)
        sys.unraisablehook = hook


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what the threads of a read print about a failure that is raised as well."""
    hooks = sys.unraisablehook, sys.excepthook
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    sys.unraisablehook = sys.excepthook = lambda *_: None
    for logger in loggers:
        logger.disabled = True
    try:
        yield
        gc.collect()  # what has failed complains when it is thrown away
    finally:
        sys.unraisablehook, sys.excepthook = hooks
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def short(error: Exception) -> str:
    """The beginning of an error as a part of a line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 120 else f"{text[:117]}..."
