"""Ends a run in good order when the system or the user asks for it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from jaxguide.runtime import exits

PREEMPTED, INTERRUPTED = exits.UNFINISHED, exits.INTERRUPTED


class Stop:
    """While this is open, SIGTERM and Ctrl-C make the run save and end.

    A second Ctrl-C does what Ctrl-C did before: it raises KeyboardInterrupt at once.
    In a run of several processes one signal to any of them stops all of them after the
    same step; JAX's preemption service carries the news, so open this after
    `jax.distributed.initialize`. Signals reach only the main thread of a program; in
    another thread nothing is changed.

    Attributes:
        code: what the program should exit with: 0, `PREEMPTED` (75) after SIGTERM, or
            `INTERRUPTED` (130) after Ctrl-C.
    """

    def __init__(self):
        self.code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._catch(signal.SIGINT, self._interrupt)
            if jax.process_count() == 1:  # else it belongs to the preemption service
                self._catch(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def asked(self, step: int) -> bool:
        """Whether to leave after `step`, the same answer in every process.

        Every process has to call this after every step.
        """
        if jax.process_count() == 1:
            return self.code != 0
        agreed = multihost_utils.reached_preemption_sync_point(step)
        if agreed:
            self.code = self.code or PREEMPTED
        return agreed

    def before_first(self) -> bool:
        """Whether a run of one process was asked to leave before its first step.

        Of several processes one may not know yet what another was told: they make a
        step, and agree.
        """
        return jax.process_count() == 1 and self.code != 0

    def _catch(self, name: int, handler: Any) -> None:
        before = signal.signal(name, handler)
        self._before[name] = signal.SIG_DFL if before is None else before

    def _terminate(self, *_: object) -> None:
        self.code = self.code or PREEMPTED

    def _interrupt(self, *_: object) -> None:
        self.code = INTERRUPTED
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nsaving after this step; Ctrl-C again leaves at once\n")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
