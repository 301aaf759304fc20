"""Sets of samples for evaluation: many images in files, by all devices of all hosts.

A set is a folder of `samples-*.npz` (see `runtime.shards`), each with `images` uint8
[n, H, W, C], `labels` int32 [n], `numbers` int32 [n] and `nfe` int32 [n]. Image i is a
function of the config and of i alone: a device always computes groups of `batch_size`
images that begin at multiples of it in their file, so that neither the number of
devices nor that of hosts, nor a restart, changes a bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxguide.errors import InputError
from jaxguide.guidance import Chain
from jaxguide.runtime import code, devices, shards
from jaxguide.runtime.background import Background
from jaxguide.runtime.calls import imported, lookup
from jaxguide.runtime.npz import Npz
from jaxguide.runtime.progress import Progress
from jaxguide.sample import build
from jaxguide.sample.columns import as_json
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.jobs import Decode, SampleJob, draw, placed
from jaxguide.sample.writing import Group, Writer, make_groups

KIND = shards.Kind(
    name="jaxguide-samples-1",
    stem="samples",
    writer="sample",
    reader="SampleSet",
    command="python -m jaxguide.sample",
)
ARRAYS = ("images", "labels", "numbers", "nfe")
LABEL_ORDERS = ("balanced", "random")
_NAMED = re.compile(r"[\w.]+:\w+")
# What a set may be made with a second time and still be the same set.
FREE = ("folder", "zoom", "per_class", "adm_file", "parallel")
# What the plan holds in a form of its own.
APART = ("num_samples", "shard_size", "checkpoint", "weak_checkpoint", "autoencoder")


def to_uint8(images: Any, rounding: str) -> Any:
    """Images in [-1, 1] as 8 bits, in JAX.

        nearest: floor(127.5 x + 128)          floor: floor(127.5 (x + 1))

    Both are cut to 0..255. "floor" is half a grey level darker on average.

    Args:
        images: float [...].
        rounding: "nearest" (as ADM, DiT and SiT) or "floor" (as REPA and MG).
    """
    half = 128.0 if rounding == "nearest" else 127.5
    scaled = jnp.floor(images.astype(jnp.float32) * 127.5 + half)
    return jnp.clip(scaled, 0, 255).astype(jnp.uint8)


def finite_images(x0: Any) -> Any:
    """Which of the images [B, ...] have finite numbers alone, bool [B], in JAX."""
    return jnp.isfinite(x0).reshape(len(x0), -1).all(axis=1)


def set_labels(config: SampleConfig, labels: list[int]) -> np.ndarray:
    """The label of every image of a set, int32 [num_samples].

    Raises:
        InputError: if the order is unknown.
    """
    lookup("label_order", config.label_order, dict.fromkeys(LABEL_ORDERS))
    known = np.asarray(labels, np.int32)
    if config.label_order == "balanced":
        return np.resize(known, config.num_samples)
    drawn = np.random.default_rng([config.seed, 1]).integers(
        len(known), size=config.num_samples
    )
    return known[drawn]


def write_set(job: SampleJob, share: tuple[int, int] = (0, 1)) -> bool:
    """Writes the files of this process that are not there yet.

    Args:
        job: with `num_samples` and one column.
        share: `(index, count)`: every `count`-th file from `index` on is this one's.

    Returns:
        Whether all files of all processes are there, and the manifest with them.

    Raises:
        InputError: if the config has several columns, or no autoencoder for a network
            of latents, or the folder was begun with another config.
        NonFiniteError: if an image is NaN or infinite; its file is not written.
    """
    config = job.config
    if len(job.columns) != 1:
        raise InputError(
            "sample: need one column for a set of samples, got "
            f"columns={config.columns!r}. Write --config.columns=\"('cfg',)\"."
        )
    channels = job.weights.model.channels
    if job.decode is None and channels not in (1, 3):
        raise InputError(
            f"sample: need an autoencoder for latents of {channels} channels, got "
            "autoencoder=''. Convert one with python -m jaxguide.convert."
        )
    lookup("rounding", config.rounding, dict.fromkeys(("nearest", "floor")))
    labels = set_labels(config, job.labels)
    folder, plan = Path(config.folder).expanduser(), set_plan(job)
    files = shards.Files(KIND, config.num_samples, config.shard_size)
    shards.write_plan(folder, KIND, plan)
    missing = shards.my_shards(folder, files, share, plan)
    (title, chain), *_ = job.columns.items()
    sample = _compile(job, chain)
    groups = make_groups(files, missing, config.batch_size)
    calls = [
        groups[i : i + sample.groups] for i in range(0, len(groups), sample.groups)
    ]
    progress = Progress(f"{title}, {len(missing)} files", len(calls))
    writer = Writer(folder, files, plan, labels, config.batch_size, progress)
    # Devices work on the next file while one is fetched, judged, written and hashed:
    # its images wait in their memory.
    ahead = -(-config.shard_size // (sample.groups * config.batch_size))
    with Background(writer.take, ahead) as writing:
        for call in calls:
            writing.put((call, sample.call(labels, call)))
    progress.close()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("samples")
    return shards.write_manifest(folder, files, plan)


def set_plan(job: SampleJob) -> dict[str, Any]:
    """Everything that decides the images of a set, JSON-able."""
    config = job.config
    settings = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(SampleConfig)
        if field.name not in FREE + APART
    }
    files = {
        name: shards.crc32(build.find_checkpoint(getattr(config, name)))
        for name in ("checkpoint", "weak_checkpoint", "autoencoder")
        if getattr(config, name)
    }
    functions = _functions(config.guidance)
    written = {"code": code.digest(*functions)} if functions else {}
    return {
        **written,
        "count": config.num_samples,
        "shard_size": config.shard_size,
        "class_names": list(job.weights.class_names),
        "crc32": files,
        **json.loads(as_json(settings)),
    }


def _functions(value: Any) -> list[Any]:
    """Functions of the user in a config, also those named as "module:function"."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [function for one in value for function in _functions(one)]
    if isinstance(value, str) and _NAMED.fullmatch(value):
        with contextlib.suppress(InputError):  # a text that only looks like one
            return [imported("sample guidance", value)]
    return [value] if inspect.isfunction(value) else []


class _Compiled(NamedTuple):
    """The program of a set."""

    # labels of all images, groups -> images, nfe, and which images are finite; every
    # group is filled up to `batch_size` rows
    call: Callable[[np.ndarray, list[Group]], tuple[Any, Any, Any]]
    groups: int  # per call


def _compile(job: SampleJob, chain: Chain) -> _Compiled:
    """One program per device, each for its own `batch_size` images; or, where they
    share the weights, one for all devices."""
    size, mesh = job.config.batch_size, devices.local_mesh()
    given = job.given(chain)
    fixed = devices.copied(given), *placed(job, mesh), devices.copied(job.decode)
    cut = job.config.parallel == "fsdp"

    def sampled(fixed: Any, labels: Any, numbers: Any) -> tuple[Any, Any, Any]:
        given, network, networks, decode = fixed
        count = mesh.size if cut else 1
        x0, nfe = draw(job, given or chain, network, networks, labels, numbers, count)
        store = functools.partial(_as_stored, job)
        if cut:
            store = _on_each(store, mesh, rows=1)
        return *store(decode, x0), nfe

    program = jax.jit(sampled if cut else _on_each(sampled, mesh, rows=2))

    def call(labels: np.ndarray, groups: list[Group]) -> tuple[Any, Any, Any]:
        rows = [np.pad(one, (0, size - len(one)), "edge") for _, one in groups]
        numbers = np.concatenate(rows + rows[-1:] * (mesh.size - len(rows)))
        # Not around a program of single devices: diffrax computes constants apart.
        with jax.set_mesh(mesh) if cut else contextlib.nullcontext():
            made = program(fixed, *devices.split((labels[numbers], numbers)))
        images, finite, nfe = made
        return images, nfe, finite

    return _Compiled(call, mesh.size)


def _on_each(function: Callable, mesh: Any, *, rows: int) -> Callable:
    """The function on each device: of what all of them have whole, and of `rows`
    arguments of which each has its part."""
    places = (devices.COPIED, *(devices.SPLIT,) * rows)
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=places,
        out_specs=devices.SPLIT,
        check_vma=False,
    )


def _as_stored(job: SampleJob, decode: Decode | None, x0: Any) -> tuple[Any, Any]:
    """8-bit images of what one device has sampled, and which of them are finite."""
    finite = finite_images(x0)
    if decode is not None:
        x0 = jax.lax.map(
            lambda latent: decode(latent[None])[0],
            x0,
            batch_size=min(job.config.decode_batch, job.config.batch_size),
        )
    return to_uint8(x0, job.config.rounding), finite & finite_images(x0)


class SampleSet:
    """A finished set, read file by file.

    Args:
        path: its folder.

    Attributes:
        plan: what decided its images; see `set_plan`.
        class_names: one per label.

    Raises:
        InputError: if the manifest or a file is missing or cut short.
    """

    def __init__(self, path: str | Path):
        self._folder = Path(path).expanduser()
        self.plan, self._files = shards.read_manifest(self._folder, KIND)
        names, count = self.plan.get("class_names"), self.plan.get("count")
        if not isinstance(names, list) or not isinstance(count, int):
            raise InputError(
                f"SampleSet: need a manifest with count and class_names, got "
                f"path={str(path)!r}. Write it with {KIND.command}."
            )
        self.class_names = tuple(names)

    def __len__(self) -> int:
        return self.plan["count"]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of one file after another, in order."""
        for facts in self._files:
            file = Npz(self._folder / facts["file"], "SampleSet")
            file.need(*ARRAYS)
            arrays = {name: file.read(name) for name in ARRAYS}
            images = arrays["images"]
            if images.ndim != 4 or {len(a) for a in arrays.values()} != {
                facts["count"]
            }:
                raise file.refused(f"{facts['count']} images", repr(images.shape))
            yield arrays

    def labels(self) -> np.ndarray:
        """All labels, int32 [N]; the images are not read."""
        files = [Npz(self._folder / one["file"], "SampleSet") for one in self._files]
        return np.concatenate([file.read("labels") for file in files])

    def verify(self) -> None:
        """Reads all files and compares their checksums.

        Raises:
            InputError: if a file was changed.
        """
        shards.check_sums(self._folder, self._files, KIND)


def write_adm_file(samples: SampleSet, path: Path) -> None:
    """One `.npz` with `arr_0` uint8 [N, H, W, C] and `arr_1` labels, file by file.

    The format of guided-diffusion's evaluator; nothing is held in memory.
    """
    shape = (len(samples), *next(iter(samples))["images"].shape[1:])
    labels = samples.labels()

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                facts = dict(descr="|u1", fortran_order=False, shape=shape)
                np.lib.format.write_array_header_1_0(member, facts)
                for arrays in samples:
                    member.write(arrays["images"].tobytes())
            with archive.open("arr_1.npy", "w") as member:
                np.lib.format.write_array(member, labels.astype(np.int64))

    shards.write_whole(path, write)
