"""The compiled programs of a sampling job.

Scales, weights, the seed and the labels of conditions are arguments: columns of equal
structure share a program, and another run finds it in JAX's cache on disk. Nothing
calls back to the host, which keeps programs out of that cache. To show progress, the
host has a program do a part of the steps at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxguide.guidance import Chain
from jaxguide.runtime import devices
from jaxguide.runtime.progress import Progress
from jaxguide.sample.build import Adaptive
from jaxguide.sample.jobs import (
    Given,
    SampleJob,
    draw,
    inputs,
    make_mesh,
    placed,
    with_table,
)
from jaxguide.samplers._generation import advanced, begun

# From (labels, numbers) on the devices, and `progress`, to (x0, NFE of each [B]).
Sample = Callable[..., Any]


class Programs:
    """Compiles what columns need, once per structure.

    Args:
        job: whose columns are sampled.
        size: images per call, a multiple of the devices that the batch is cut over.

    Attributes:
        mesh: the devices; their axis "batch" cuts labels and numbers.
    """

    def __init__(self, job: SampleJob, size: int):
        self._job, self.size = job, size
        self.mesh = make_mesh(job, size)
        self._weights = placed(job, self.mesh)
        self.found: dict[Any, Any] = {}

    @property
    def steps(self) -> int:
        """Of progress, in one call; an adaptive solver's own are not known."""
        adaptive = isinstance(self._job.sampler, Adaptive)
        return 1 if adaptive else self._job.config.num_steps

    def sampler(self, chain: Chain) -> Sample:
        """The program of a chain, compiled unless a former one serves."""
        given = self._job.given(chain)
        if given is None:
            return self._adaptive(chain)
        leaves, structure = jax.tree.flatten(given)
        key = structure, tuple(jax.typeof(leaf) for leaf in leaves)
        if key not in self.found:
            self.found[key] = self._stepwise(given)
        begin, advance = self.found[key]
        evaluations = np.full(self.size, self._job.cost(chain).nfe, np.int32)
        ends = given.guidance.ends.astype(np.int32)

        def sample(rows: Any, progress: Progress) -> Any:
            fixed = given, *self._weights, *rows
            carry = begin(*fixed)
            for first, last in _spans(self.steps, progress):
                span = ends[first], ends[last]
                carry = jax.block_until_ready(advance(*fixed, carry, *span))
                progress.step(last - first)
            return carry.x, evaluations

        return sample

    def _stepwise(self, given: Given) -> tuple[Any, Any]:
        """The programs that begin, and that do any part of the steps."""
        job, count = self._job, self.mesh.shape[devices.BATCH]

        def begin(
            given: Given, network: Any, networks: Any, labels: Any, numbers: Any
        ) -> Any:
            noise, named = inputs(job, networks, labels, numbers, count, given)
            return begun(network, noise, labels, guidance=given.guidance, **named)

        def advance(
            given: Given, network: Any, networks: Any, labels: Any, numbers: Any,
            carry: Any, first: Any, last: Any,
        ) -> Any:  # fmt: skip
            _, named = inputs(job, networks, labels, numbers, count, given)
            guidance, span = given.guidance, (first, last)
            network = with_table(job, network, labels, named["conds"])
            return advanced(network, carry, labels, span, guidance=guidance, **named)

        fixed = given, *self._weights, *self._example()
        # On the devices of the weights, which it does not read.
        begin_now = self._compiled(jax.jit(begin, keep_unused=True), *fixed)
        carry = begin_now(*fixed)
        # A part ends as the next one begins.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, carry)
        advance_now = jax.jit(advance, out_shardings=shardings)
        zero = np.int32(0)
        return begin_now, self._compiled(advance_now, *fixed, carry, zero, zero)

    def _adaptive(self, chain: Chain) -> Sample:
        """The program of an adaptive solver: of this chain alone."""

        def local(network: Any, networks: Any, *rows: Any) -> Any:
            count = self.mesh.shape[devices.BATCH]
            return draw(self._job, chain, network, networks, *rows, count=count)

        fixed = *self._weights, *self._example()
        program = self._compiled(jax.jit(local), *fixed)

        def sample(rows: Any, progress: Progress) -> Any:
            made = jax.block_until_ready(program(*self._weights, *rows))
            progress.step()
            return made

        return sample

    def _compiled(self, program: Any, *args: Any) -> Any:
        """For the devices, which networks, kernels and the guidance see."""
        with jax.set_mesh(self.mesh):
            return program.lower(*args).compile()

    def _example(self) -> Any:
        """Labels and numbers as a call has them."""
        zeros = np.zeros(self.size, np.int32)
        return devices.split((zeros, zeros), self.mesh)


def _spans(steps: int, progress: Progress) -> Iterator[tuple[int, int]]:
    """The steps in parts, about as long as `progress` pauses between two lines.

    The first one is a single step, which tells how long a step takes.
    """
    first, last, start = 0, 1, time.perf_counter()
    while first < steps:
        yield first, last
        each = (time.perf_counter() - start) / last
        part = max(1, int(progress.pause / max(each, 1e-9)))
        first, last = last, min(last + part, steps)
