"""A whole evaluation: from a config to features, measures and their record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxguide.errors import InputError
from jaxguide.evaluate import (
    config as evaluate_config,
    measures,
    reference as references,
)
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.images import Images
from jaxguide.evaluate.measures import Measured
from jaxguide.evaluate.protocols import Protocol
from jaxguide.evaluate.reference import Reference
from jaxguide.evaluate.store import Store, extract
from jaxguide.runtime.files import check_writable
from jaxguide.runtime.shards import MANIFEST
from jaxguide.sample import columns, jobs, sets as sample_set
from jaxguide.sample.config import SampleConfig

Share = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class EvaluationJob:
    """Everything a config describes, checked before anything runs."""

    config: EvaluateConfig
    names: tuple[str, ...]
    protocol: Protocol
    network: FeatureNetwork
    samples: dict[str, Images]
    reals: Images | None  # None: statistics without images
    statistics: Reference | None

    @property
    def needs_reals(self) -> bool:
        """Whether features of real images are looked at one by one."""
        return self.statistics is None or self.looks_at_images

    @property
    def looks_at_images(self) -> bool:
        """Whether a measure needs the features of single images."""
        return bool(set(self.names) - measures.MOMENTS_ONLY)

    def describe(self) -> str:
        """What will be done, for people."""
        config, network = self.config, self.network
        lines = [
            f"network    {network.fingerprint}, {network.size} features",
            f"protocol   {self.protocol.name}",
            f"reference  {config.reference}: {_size(self.reals)}"
            + (", statistics from the file" if self.statistics else ""),
        ]
        for name, images in self.samples.items():
            lines.append(f"samples    {name}: {_size(images)}")
        titles = ", ".join(measures.title(name, network) for name in self.names)
        return "\n".join([*lines, f"measures   {titles}"])


def _size(images: Images | None) -> str:
    if images is None:
        return "no images"
    return f"{len(images)} images of {'x'.join(map(str, images.shape))}"


def build_job(config: EvaluateConfig, share: Share = (0, 1)) -> EvaluationJob | None:
    """Checks the config and opens what it names; samples first what is a config.

    Returns:
        None if other processes, which this one cannot hear, still sample.

    Raises:
        InputError: for anything wrong, with the fix.
    """
    evaluate_config.check(config)
    names = tuple(evaluate_config.build_names(config))
    protocol = evaluate_config.build_protocol(config)
    network = evaluate_config.build_features(config, protocol)
    measures.check_names(names, network)
    statistics, reals = _open_reference(config, network)
    # What lies there is opened and judged before anything is sampled.
    texts = [text.strip() for text in config.samples.split(",") if text.strip()] or [""]
    opened = {
        text: evaluate_config.build_images("samples", text, config.num_samples)
        for text in texts
        if not evaluate_config.is_sampling(text)
    }
    sampling = {
        text: evaluate_config.build_sampling(text, config, number)
        for number, text in enumerate(texts)
        if evaluate_config.is_sampling(text)
    }
    job = EvaluationJob(config, names, protocol, network, opened, reals, statistics)
    _check(job)
    for text, settings in sampling.items():
        _check_count(job, text, settings.num_samples)
    check_writable(config.folder, "evaluate", "folder")
    check_writable(config.cache, "evaluate", "cache")
    if not _sample(sampling, share):
        return None
    for text, settings in sampling.items():
        opened[text] = evaluate_config.build_images(
            "samples", settings.folder, config.num_samples
        )
    ordered = {text: opened[text] for text in texts}
    job = dataclasses.replace(job, samples=ordered)
    _check(job)
    return job


def _sample(sampling: dict[str, SampleConfig], share: Share) -> bool:
    """Writes sets of samples; returns whether all files of all processes are there."""
    sampled = [jobs.build_job(settings) for settings in sampling.values()]
    return all([sample_set.write_set(job, share) for job in sampled])


def _open_reference(
    config: EvaluateConfig, network: FeatureNetwork
) -> tuple[Reference | None, Images | None]:
    """Statistics, if the reference is a file of them, and its images, if it has any."""
    text, count = config.reference, config.num_reference
    if not references.is_statistics(text):
        return None, evaluate_config.build_images("reference", text, count)
    statistics = references.read_statistics(text, network)
    images = references.statistics_images(text)
    return statistics, images


def _check(job: EvaluationJob) -> None:
    """Raises InputError unless sizes and numbers of images suit the measures."""
    if job.needs_reals and job.reals is None:
        wanted = sorted(set(job.names) - measures.MOMENTS_ONLY)
        raise InputError(
            f"evaluate: need real images for {', '.join(wanted)}, got "
            f"reference={job.config.reference!r} with statistics alone. Name images, "
            "or leave them out of metrics."
        )
    if "sfid" in job.names and job.statistics and job.statistics.spatial is None:
        raise InputError(
            "evaluate: need mu_s and sigma_s for sfid, got "
            f"reference={job.config.reference!r} without. Use ADM's file, or images."
        )
    for name, images in job.samples.items():
        _check_size(job, name, images)
        _check_count(job, name, len(images))


def _check_size(job: EvaluationJob, name: str, images: Images) -> None:
    if job.reals is not None and images.shape[:2] != job.reals.shape[:2]:
        raise InputError(
            f"evaluate: need images of one size, got {list(images.shape)!r} in "
            f"samples={name!r} and {list(job.reals.shape)!r} in the reference. "
            "Resize one of them."
        )


def _check_count(job: EvaluationJob, name: str, count: int) -> None:
    if set(job.names) & {"fid", "fd", "sfid"} and count <= job.network.size:
        raise InputError(
            f"evaluate: need more images than features, {job.network.size}, for a "
            f"Frechet distance, got {count} in samples={name!r}. Make more, "
            f"or ask for {job.network.kernel}, unbiased at any number: "
            "--config.metrics=kd"
        )
    least = job.protocol.least
    if set(job.names) & {"kid", "kd"} and min(count, len(job.reals or ())) < least:
        raise InputError(
            f"evaluate: need {least} images or more for {job.network.kernel}, got "
            f"{count} in samples={name!r} and {len(job.reals or ())} in the reference."
        )


class Result(NamedTuple):
    """The results of an evaluation."""

    values: dict[str, dict[str, Measured]]  # set of samples -> measure -> value
    over_sets: dict[str, Measured]  # mean and deviation over the sets
    floor: dict[str, Measured]
    floor_count: int


def run(job: EvaluationJob, share: Share = (0, 1)) -> Result | None:
    """Features of all images, then the measures.

    Returns:
        None in a process that leaves the measures to another.
    """
    fields = measures.needed_fields(job.names)
    folders = [_extract(job, images, fields, share) for images in job.samples.values()]
    spatial = ("spatial",) if "spatial" in fields and job.statistics is None else ()
    real_folder = None
    if job.needs_reals and job.reals is not None:
        real_folder = _extract(job, job.reals, ("pool", *spatial), share)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("features")
        if share[0]:
            return None
    every = [*folders, *([real_folder] if real_folder else [])]
    if not all((folder / MANIFEST).is_file() for folder in every):
        return None
    reference = _reference(job, real_folder, share[1])
    stores = [Store(folder, share[1]) for folder in folders]
    values = {
        name: measures.measure(
            job.names,
            measures.Sample.of_store(
                store, features=job.looks_at_images or job.config.blocks > 1
            ),
            reference,
            job.protocol,
            blocks=job.config.blocks,
        )
        for name, store in zip(job.samples, stores, strict=True)
    }
    if job.config.save_reference:
        references.write_statistics(
            job.config.save_reference, reference, network=job.network
        )
    count = min(len(store) for store in stores)
    floor_count, floor = _floor(job, reference, count)
    return Result(values, _over_sets(values), floor, floor_count)


def _extract(
    job: EvaluationJob, images: Images, fields: Sequence[str], share: Share
) -> Path:
    return extract(
        images,
        job.network,
        job.config.cache,
        fields=fields,
        share=share,
        shard_size=job.config.shard_size,
        title="reference" if images is job.reals else "samples",
    )


def _reference(job: EvaluationJob, folder: Path | None, processes: int) -> Reference:
    """From the features of real images, a file of statistics, or both."""
    wanted = job.looks_at_images or bool(job.config.floor_seeds)
    reals = None
    if folder is not None:
        reals = Reference.of_store(Store(folder, processes), features=wanted)
    if job.statistics is None:
        assert reals is not None
        return reals
    features = None if reals is None else reals.features
    return dataclasses.replace(job.statistics, features=features)


def _floor(
    job: EvaluationJob, reference: Reference, count: int
) -> tuple[int, dict[str, Measured]]:
    """What real images reach, where half of them are enough for every measure."""
    features, seeds, protocol = reference.features, job.config.floor_seeds, job.protocol
    kernels = bool(set(job.names) & {"kid", "kd"})
    least = max(protocol.coverage_k + 1, protocol.least if kernels else 2)
    if features is None or not seeds or min(count, len(features) // 2) < least:
        return 0, {}
    return measures.floor(job.names, features, count, protocol, seeds=seeds)


def _over_sets(values: dict[str, dict[str, Measured]]) -> dict[str, Measured]:
    """Mean and standard deviation over several sets of samples."""
    sets = list(values.values())
    if len(sets) < 2:
        return {}
    return {
        name: Measured(
            float(np.mean([one[name].value for one in sets])),
            float(np.std([one[name].value for one in sets], ddof=1)),
        )
        for name in sets[0]
    }


def record(job: EvaluationJob, result: Result) -> dict[str, Any]:
    """Everything that is needed to compare the numbers, JSON-able."""
    titles = {name: measures.title(name, job.network) for name in job.names}

    def plain(values: dict[str, Measured]) -> dict[str, Any]:
        return {
            titles[name]: {
                "value": measured.value,
                "spread": None if math.isnan(measured.spread) else measured.spread,
            }
            for name, measured in values.items()
        }

    return {
        "samples": [
            {"set": name, "count": len(job.samples[name]), "measures": plain(values)}
            for name, values in result.values.items()
        ],
        "over_sets": plain(result.over_sets),
        "floor": {"count": result.floor_count, "measures": plain(result.floor)},
        "reference": {
            "set": job.config.reference,
            "count": job.statistics.count if job.statistics else len(job.reals or ()),
        },
        "protocol": dataclasses.asdict(job.protocol),
        "network": job.network.fingerprint,
        "config": dataclasses.asdict(job.config),
        **columns.environment(),
    }


def table(job: EvaluationJob, result: Result) -> str:
    """Values, spreads and the floor, for people."""
    head = ["measure", "value", "spread", f"floor, N = {result.floor_count or '-'}"]
    lines = []
    sets = dict(result.values)
    if result.over_sets:
        sets[f"mean of {len(result.values)} sets"] = result.over_sets
    for name, values in sets.items():
        count = f", N = {len(job.samples[name])}" if name in job.samples else ""
        rows = [head]
        for measure, measured in values.items():
            floor = result.floor.get(measure)
            reached = f"{floor.value:.5g} ± {floor.spread:.2g}" if floor else "-"
            spread = "-" if math.isnan(measured.spread) else f"{measured.spread:.2g}"
            title = measures.title(measure, job.network)
            rows.append([title, f"{measured.value:.5g}", spread, reached])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append(f"{name}{count}")
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
