"""The pictures of a sampling job: columns of images, and what they took."""

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxguide import __version__
from jaxguide.errors import NonFiniteError
from jaxguide.guidance import Chain
from jaxguide.runtime import devices
from jaxguide.runtime.progress import Progress
from jaxguide.sample.jobs import SampleJob, make_mesh
from jaxguide.sample.programs import Programs


class Column(NamedTuple):
    """One column group of the picture."""

    images: np.ndarray  # [classes, per_class, H, W, C] in about [-1, 1]
    nfe: float  # per image
    compile_seconds: float
    run_seconds: float


def run(job: SampleJob) -> Iterator[tuple[str, Column]]:
    """Samples the columns one after another, all from the same noise.

    Yields:
        (title, column).
    """
    rows = images(job)
    size = min(job.config.batch_size, len(rows[0]))
    programs = Programs(job, devices.round_up(size, make_mesh(job, size)))
    for title, chain in job.columns.items():
        yield title, _column(job, programs, title, chain, rows)


def images(job: SampleJob) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and numbers [N] of all images, class by class."""
    per_class = job.config.per_class
    labels = np.repeat(np.asarray(job.labels, np.int32), per_class)
    # A sample's number depends on its class and place in the row, not on which other
    # classes are drawn.
    numbers = labels * 100_000 + np.tile(np.arange(per_class), len(job.labels))
    return labels, numbers.astype(np.int32)


def by_class(job: SampleJob, images: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as [classes, per_class, H, W, C]."""
    return images.reshape(len(job.labels), job.config.per_class, *images.shape[1:])


def _column(
    job: SampleJob,
    programs: Programs,
    title: str,
    chain: Chain,
    rows: tuple[np.ndarray, np.ndarray],
) -> Column:
    """The images of one chain."""
    labels, size = rows[0], programs.size
    start = time.perf_counter()
    sample = programs.sampler(chain)
    compiled = time.perf_counter() - start
    progress = Progress(title, -(-len(labels) // size) * programs.steps)
    start = time.perf_counter()
    call = functools.partial(sample, progress=progress)
    x0, nfe = devices.in_batches(call, rows, size, programs.mesh)
    check_finite(title, x0, labels)
    shown = decoded(job, x0)
    check_finite(title, shown, labels)
    pictures = by_class(job, shown)
    ran = time.perf_counter() - start
    progress.close()
    return Column(pictures, float(nfe.mean()), compiled, ran)


def check_finite(title: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Raises NonFiniteError unless images [N, ...] of a column are finite."""
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"sample: need finite images, got NaN or infinity in {(~finite).sum()} of "
            f"{len(images)} in column {title!r}, first of label "
            f"{labels[~finite][0]}. Lower the scales, or use dtype='float32'."
        )


def decoded(job: SampleJob, x0: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] of latents [N, h, w, c]; without autoencoder the same."""
    if job.decode is None:
        return x0
    size = batch_size(job.config.decode_batch * jax.local_device_count(), len(x0))
    with jax.set_mesh(devices.local_mesh()):  # for kernels, see `jobs.make_mesh`
        return devices.in_batches(functools.partial(_decode, job.decode), x0, size)


@jax.jit
def _decode(decode: Callable[[Any], Any], x0: Any) -> Any:
    return decode(x0)


def batch_size(wanted: int, count: int) -> int:
    """At most `wanted` and `count`, rounded up to a multiple of the devices."""
    return devices.round_up(min(wanted, count))


def environment() -> dict[str, Any]:
    """Devices and versions, for the record of a run."""
    return {
        "devices": [str(device.device_kind) for device in jax.devices()],
        "versions": {"jaxguide": __version__, "jax": jax.__version__},
    }


def as_json(record: Any) -> str:
    """The record of a run as strict JSON; functions by name, arrays as lists.

    JSON has no number for NaN, which becomes null, nor for infinity, which becomes a
    text.
    """
    return json.dumps(_plain(record), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """The same in types of JSON."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}:{name}" if name else repr(value)
