"""The measures by name: what each needs, and its value with a spread.

fid, kid        Frechet and kernel distance of Inception's features
fd, kd          the same of any network; reported as "FD-<network>", never as FID
sfid            Frechet distance of features that keep their places
is              Inception Score
precision, recall, density, coverage
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxguide.errors import InputError, NonFiniteError
from jaxguide.evaluate import frechet, kernel, manifold
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.frechet import Gaussian
from jaxguide.evaluate.protocols import PLAIN, Protocol
from jaxguide.evaluate.reference import Reference, shuffled
from jaxguide.evaluate.statistics import Moments, without
from jaxguide.evaluate.store import Store
from jaxguide.runtime.calls import lookup


@dataclasses.dataclass(frozen=True)
class Measured:
    """A value and how far it may be off.

    Args:
        value: of the measure.
        spread: standard error; of "is" and a kernel distance of subsets the standard
            deviation over parts or subsets. Not a number if it was not wanted.
    """

    value: float
    spread: float = math.nan


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Features of generated images.

    Args:
        count: number of images N.
        pool: moments of the features.
        features: float32 [N, D] or None.
        spatial: moments of the features that keep their places, or None.
        logits: [N, K] or None.
    """

    count: int
    pool: Moments
    features: np.ndarray | None = None
    spatial: Moments | None = None
    logits: np.ndarray | None = None

    @classmethod
    def of_features(cls, pool: np.ndarray, **others: Any) -> Sample:
        """From features [N, D] in memory."""
        return cls(len(pool), Moments.of(pool), pool, **others)

    @classmethod
    def of_store(cls, store: Store, *, features: bool = True) -> Sample:
        """From features on disk; `features` takes them into memory."""
        fields = store.fields
        return cls(
            len(store),
            store.moments("pool"),
            store.all("pool") if features else None,
            store.moments("spatial") if "spatial" in fields else None,
            store.all("logits") if "logits" in fields else None,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """What a measure is computed from."""

    sample: Sample
    reference: Reference
    protocol: Protocol
    blocks: int

    @property
    def features(self) -> np.ndarray:
        """Of the sample, [N, D]."""
        assert self.sample.features is not None
        return self.sample.features

    @property
    def chosen_reals(self) -> np.ndarray:
        """Real images that the protocol compares single ones with, in random order."""
        return self.reference.some(self.protocol.reals)

    def _manifold(self, of: Callable, k: int) -> tuple[manifold.Share, manifold.Share]:
        reals, balls = self.chosen_reals, self.protocol.balls
        radii = self.reference.radii(k, balls, self.protocol.reals)
        return of(self.features, reals, k=k, balls=balls, radii=radii)

    @functools.cached_property
    def precision_recall(self) -> tuple[manifold.Share, manifold.Share]:
        """Both, which have their distances in common."""
        return self._manifold(manifold.precision_recall, self.protocol.precision_k)

    @functools.cached_property
    def density_coverage(self) -> tuple[manifold.Share, manifold.Share]:
        """Both, which have their distances in common."""
        return self._manifold(manifold.density_coverage, self.protocol.coverage_k)


def _frechet(task: _Task) -> Measured:
    whole, reference = task.sample.pool, task.reference

    def distance(moments: Moments) -> float:
        return frechet.frechet_distance(
            Gaussian.of(moments), reference.pool, factor_b=reference.factor
        )

    return Measured(distance(whole), _spread(task, distance))


def _spread(task: _Task, distance: Callable[[Moments], float]) -> float:
    """The jackknife's standard error, leaving out one block of images at a time."""
    features, blocks = task.sample.features, task.blocks
    if blocks < 2 or features is None or len(features) < 2 * blocks:
        return math.nan
    order = shuffled(len(features))
    parts = (features[order[block::blocks]] for block in range(blocks))
    left = (without(task.sample.pool, Moments.of(part)) for part in parts)
    return kernel.jackknife_error([distance(moments) for moments in left])


def _spatial(task: _Task) -> Measured:
    spatial, real = task.sample.spatial, task.reference.spatial
    if spatial is None or real is None:
        raise InputError(
            "measures: need spatial features of both sets for 'sfid', got a network or "
            "a reference without. Use Inception, and ADM's statistics or images."
        )
    return Measured(frechet.frechet_distance(Gaussian.of(spatial), real))


def _kernel(task: _Task) -> Measured:
    protocol, samples = task.protocol, task.features
    if protocol.kernel_subsets:
        estimate = kernel.subset_kernel_distance(
            samples,
            task.reference.reals,
            subsets=protocol.kernel_subsets,
            size=protocol.kernel_size,
            seed=protocol.seed,
        )
        return Measured(estimate.value, estimate.spread)
    samples, reals = samples[shuffled(len(samples))], task.chosen_reals
    few = min(len(samples), len(reals)) < protocol.least
    within = None if few else task.reference.within(protocol.reals)
    estimate = kernel.kernel_distance(samples, reals, within_y=within)
    return Measured(estimate.value, estimate.spread)


def _score(task: _Task) -> Measured:
    if task.sample.logits is None:
        raise InputError(
            "measures: need logits for 'is', got a network without. Use Inception."
        )
    estimate = task.protocol.inception_score(task.sample.logits)
    return Measured(estimate.mean, estimate.std)


def _shown(share: manifold.Share) -> Measured:
    return Measured(share.value, share.error)


# name -> how it is computed.
MEASURES: dict[str, Callable[[_Task], Measured]] = {
    "fid": _frechet,
    "fd": _frechet,
    "sfid": _spatial,
    "is": _score,
    "kid": _kernel,
    "kd": _kernel,
    "precision": lambda task: _shown(task.precision_recall[0]),
    "recall": lambda task: _shown(task.precision_recall[1]),
    "density": lambda task: _shown(task.density_coverage[0]),
    "coverage": lambda task: _shown(task.density_coverage[1]),
}
MOMENTS_ONLY = {"fid", "fd", "sfid", "is"}  # no features of single images
INCEPTION_ONLY = {"fid": "fd", "kid": "kd", "sfid": "fd"}
BIGGER_IS_BETTER = ("is", "precision", "recall", "density", "coverage")


def needed_fields(names: Iterable[str]) -> tuple[str, ...]:
    """The fields of features that measures are made from."""
    extra = {"sfid": "spatial", "is": "logits"}
    return ("pool", *sorted({extra[name] for name in names if name in extra}))


def check_names(names: Sequence[str], network: FeatureNetwork) -> None:
    """Raises InputError unless the network may report these measures."""
    for name in names:
        lookup("measures", name, MEASURES)
        if name in INCEPTION_ONLY and network.frechet != "FID":
            raise InputError(
                f"measures: need Inception's weights for {name!r}, got "
                f"network={network.name!r}. Ask for {INCEPTION_ONLY[name]!r}, "
                f"reported as {network.frechet!r}, or name Inception's weights."
            )


def title(name: str, network: FeatureNetwork) -> str:
    """What reports call a measure."""
    titles = {
        "fd": network.frechet,
        "kd": network.kernel,
        "sfid": "sFID",
        "is": "IS" if network.frechet == "FID" else f"IS-{network.name}",
    }
    return titles.get(name, name.upper() if name in ("fid", "kid") else name)


def measure(
    names: Sequence[str],
    sample: Sample,
    reference: Reference,
    protocol: Protocol = PLAIN,
    *,
    blocks: int = 0,
) -> dict[str, Measured]:
    """Measures of one set of images.

    Args:
        names: keys of `MEASURES`.
        sample: the images' features.
        reference: real images' features.
        protocol: see there.
        blocks: for the standard error of a Frechet distance; 0 leaves it out.

    Raises:
        InputError: if there are too few images, or something is missing for a measure.
        NonFiniteError: if a value is NaN or infinite.
    """
    task = _Task(sample, reference, protocol, blocks)
    values = {name: lookup("measures", name, MEASURES)(task) for name in names}
    for name, measured in values.items():
        if not math.isfinite(measured.value) or math.isinf(measured.spread):
            raise NonFiniteError(
                f"measures: need finite features, got {name}={measured.value!r} with "
                f"spread={measured.spread!r}. Check the network and the reference."
            )
    return values


def score(
    images: np.ndarray,
    network: FeatureNetwork,
    reference: Reference,
    names: Sequence[str] = ("fd", "kd"),
    protocol: Protocol = PLAIN,
) -> dict[str, float]:
    """Measures of images in memory, for sweeps: nothing is written.

    Args:
        images: uint8 [N, H, W, C], all at once.
        network: of the features.
        reference: see `Reference.of`; its parts that do not depend on the images are
            computed once.
        names: keys of `MEASURES`.
        protocol: see there.

    Raises:
        InputError: if there are too few images, or the network may not report a
            measure.
    """
    check_names(names, network)
    extracted = network.extract(images)
    spatial = None
    if "sfid" in names and extracted.spatial is not None:
        spatial = Moments.of(np.asarray(extracted.spatial))
    logits = None if extracted.logits is None else np.asarray(extracted.logits)
    pool = np.asarray(extracted.pool)
    sample = Sample.of_features(pool, spatial=spatial, logits=logits)
    values = measure(names, sample, reference, protocol)
    return {name: value.value for name, value in values.items()}


def floor(
    names: Sequence[str],
    features: np.ndarray,
    count: int,
    protocol: Protocol = PLAIN,
    *,
    seeds: int = 3,
) -> tuple[int, dict[str, Measured]]:
    """What real images reach: some of the reference against all others of it.

    Args:
        names: keys of `MEASURES` that need features alone.
        features: of the reference, float32 [M, D].
        count: images of the sample N.
        protocol: see there.
        seeds: how many random choices are made.

    Returns:
        (n, measures): n = min(N, M // 2) images were taken; value and spread are mean
        and standard deviation over the seeds. A distance falls with n: compare it
        with n images of the sample.

    Raises:
        InputError: if `seeds` is not positive, or there are too few features.
    """
    if seeds < 1:
        raise InputError(f"floor: need seeds >= 1, got seeds={seeds!r}. Take 3.")
    count = min(count, len(features) // 2)
    names = [name for name in names if name not in ("sfid", "is")]
    draws = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(features))
        taken, others = features[order[:count]], features[order[count:]]
        reference = Reference(
            Gaussian.of(Moments.of(others)), None, others, len(others)
        )
        draws.append(measure(names, Sample.of_features(taken), reference, protocol))
    return count, {
        name: Measured(
            float(np.mean([one[name].value for one in draws])),
            float(np.std([one[name].value for one in draws])),
        )
        for name in names
    }
