"""Scores of sweeps: measures of every point against real images."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxguide.errors import InputError
from jaxguide.evaluate import config as evaluate_config, measures
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.protocols import Protocol
from jaxguide.evaluate.reference import Reference


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Judges images; `build_scorer` makes one.

    Args:
        names: keys of `measures.MEASURES`.
        network: of the features.
        protocol: see there.
        reference: real images' features.
        floor: what real images reach, and with how many.
    """

    names: tuple[str, ...]
    network: FeatureNetwork
    protocol: Protocol
    reference: Reference
    floor: dict[str, measures.Measured]
    floor_count: int

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        """Measures of images uint8 [N, H, W, C], by the titles that reports use."""
        values = measures.score(
            images, self.network, self.reference, self.names, self.protocol
        )
        return {self.title(name): value for name, value in values.items()}

    def title(self, name: str) -> str:
        """What reports call a measure."""
        return measures.title(name, self.network)


def build_scorer(config: EvaluateConfig, count: int) -> Scorer | None:
    """The scorer of sets of `count` images; None without a reference.

    Raises:
        InputError: if a name is unknown, or something is missing.
    """
    if not config.reference:
        return None
    if count < 2:
        raise InputError(
            "sweep: need num_samples >= 2 to score every point, got "
            f"num_samples={count!r}. Write --config.num_samples=1000."
        )
    evaluate_config.check(config)
    names = tuple(evaluate_config.build_names(config))
    protocol = evaluate_config.build_protocol(config)
    network = evaluate_config.build_features(config, protocol)
    measures.check_names(names, network)
    images = evaluate_config.build_images(
        "reference", config.reference, config.num_reference
    )
    reference = Reference.of(
        images, network, cache=config.cache, spatial="sfid" in names
    )
    assert reference.features is not None
    seeds = config.floor_seeds
    floor_count, floor = (
        measures.floor(names, reference.features, count, protocol, seeds=seeds)
        if seeds
        else (0, {})
    )
    return Scorer(names, network, protocol, reference, floor, floor_count)
