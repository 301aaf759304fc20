"""From images to a folder of latents, in a run that may be stopped at any time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxguide.data.identity import identity
from jaxguide.data.latent_plan import KIND, Plan
from jaxguide.data.latent_shards import write_shard
from jaxguide.data.prefetch import Prefetch
from jaxguide.data.source import Batch, Source
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.runtime import code, devices, shards
from jaxguide.runtime.progress import Progress

Encode = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """The first half of an autoencoder.

    Args:
        name: kept with the latents.
        encode: images [B, H, W, C] in [-1, 1] to moments [B, h, w, 2c]: means, then
            log variances. A `jax.tree_util.Partial` keeps weights out of the compiled
            program.
        scale, shift: x0 = (latent - shift) * scale has about unit variance.

    Raises:
        InputError: if `scale` or `shift` is not finite, or `scale` is 0.
    """

    name: str
    encode: Encode
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self):
        if not (math.isfinite(self.scale) and self.scale and math.isfinite(self.shift)):
            raise InputError(
                "Encoder: need finite numbers, scale other than 0, got "
                f"scale={self.scale!r}, shift={self.shift!r} for {self.name!r}. The "
                "autoencoder of Stable Diffusion has scale=0.18215."
            )

    @property
    def digest(self) -> str:
        """A checksum of code and weights: another encoder, another text."""
        return code.digest(self.encode)


def space_to_depth(factor: int = 8) -> Encoder:
    """An exact, invertible stand-in for an autoencoder.

    Every square of `factor` x `factor` pixels becomes the channels of one latent pixel
    (row, column, colour); the variance is zero.

    Args:
        factor: edge of the square, which must divide the image; 8 like the
            autoencoder of Stable Diffusion.
    """

    def encode(images: Array) -> Array:
        batch, height, width, channels = images.shape
        if height % factor or width % factor:
            raise InputError(
                f"space_to_depth: need edges that {factor} divides, got "
                f"images={list(images.shape)!r}. Choose another size."
            )
        rows, columns = height // factor, width // factor
        squares = images.reshape(batch, rows, factor, columns, factor, channels)
        mean = squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
        # exp of this log variance is exactly 0: drawing from it adds no noise.
        return jnp.concatenate([mean, jnp.full_like(mean, -jnp.inf)], axis=-1)

    return Encoder("space_to_depth", encode)


def write_latents(
    source: Source,
    encoder: Encoder,
    folder: str | Path,
    *,
    format: str = "npz",
    dtype: str = "float16",
    mirrored: bool = True,
    batch_size: int = 64,
    shard_size: int = 4096,
    note: dict | None = None,
    share: tuple[int, int] = (0, 1),
) -> bool:
    """Encodes every image of a source, on all devices of this host.

    A stopped run carries on where it was: files that are there, with the checksum that
    was noted when they were written, are kept.

    Args:
        source: of images.
        encoder: of images to moments.
        folder: where the files go.
        format: "npz" or "array_record".
        dtype: of the moments, "float16" or "float32".
        mirrored: encode the mirror image of every image too.
        batch_size: images per call; rounded up to the number of devices.
        shard_size: examples per file; at most so many are encoded twice.
        note: JSON-able facts to keep with the latents.
        share: `(index, count)`: this host writes every `count`-th file from `index` on;
            whichever host ends last writes the manifest.

    Returns:
        Whether all files of all hosts are there, and the manifest with them.

    Raises:
        InputError: if the source holds latents, the encoder returns no moments or no
            finite means, a choice is unknown, or the folder was begun with other
            choices, other images or another encoder of the same name.
    """
    if batch_size < 1:
        raise InputError(
            f"write_latents: need batch_size >= 1, got batch_size={batch_size!r}. "
            "64 will do."
        )
    plan = Plan(
        encoder=encoder.name,
        scale=float(encoder.scale),
        shift=float(encoder.shift),
        shape=_moments_shape(source, encoder),
        count=len(source),
        class_names=tuple(source.class_names),
        format=format,
        dtype=dtype,
        mirrored=mirrored,
        shard_size=shard_size,
        note=note or {},
        images=identity(source),
        encoder_digest=encoder.digest,
    )
    folder, facts = Path(folder).expanduser(), dataclasses.asdict(plan)
    shards.write_plan(folder, KIND, facts)
    missing = shards.my_shards(folder, plan.files, share, facts)
    batch_size = devices.round_up(batch_size)
    encode = _on_all_devices(encoder, batch_size)
    spans = [_pieces(plan.files.span(shard), batch_size) for shard in missing]
    progress = Progress(f"encode {len(missing)} files", sum(map(len, spans)))
    # The facts of a file come last: a kill before them leaves a file that is not
    # trusted, and is made again.
    for shard, pieces in zip(missing, spans, strict=True):
        moments, labels = _encode_shard(source, encode, plan, pieces, progress)
        write_shard(folder / plan.files.file(shard), format, moments, labels)
        shards.write_facts(folder, plan.files, shard, facts)
    progress.close()
    return shards.write_manifest(folder, plan.files, facts)


def _moments_shape(source: Source, encoder: Encoder) -> tuple[int, int, int]:
    if source.is_latent:
        raise InputError(
            "write_latents: need a source of images, got is_latent=True. "
            "These are latents already."
        )
    image = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.float32)
    moments = jax.eval_shape(encoder.encode, image)
    shape = getattr(moments, "shape", ())
    if len(shape) != 4 or shape[-1] % 2:
        raise InputError(
            "write_latents: need an encoder to moments [B, h, w, 2c], got "
            f"shape={list(shape)!r} from {encoder.name}. Return means and log "
            "variances, joined along the channels."
        )
    return shape[1:]


def _on_all_devices(
    encoder: Encoder, batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Encodes up to `batch_size` images; one compiled program for any number."""
    partial = jax.tree_util.Partial
    function = encoder.encode
    function = function if isinstance(function, partial) else partial(function)
    compiled = jax.jit(lambda encode, images: encode(images))

    def encode(images: np.ndarray) -> np.ndarray:
        moments = devices.in_batches(
            functools.partial(compiled, function), images, batch_size
        )
        return moments.astype(np.float32, copy=False)

    return encode


def _pieces(span: range, size: int) -> list[range]:
    return [span[start : start + size] for start in range(0, len(span), size)]


def _encode_shard(
    source: Source,
    encode: Callable[[np.ndarray], np.ndarray],
    plan: Plan,
    pieces: list[range],
    progress: Progress,
) -> Batch:
    """Moments [n, sides, h, w, 2c] and labels [n] of one file."""
    first, count = pieces[0].start, sum(map(len, pieces))
    moments = np.empty((count, plan.sides, *plan.shape), plan.dtype)
    labels = np.empty(count, np.int32)

    def read(piece: int) -> Batch:
        draws = np.zeros(len(pieces[piece]), np.uint64)
        picked = np.asarray(pieces[piece])
        return source.read(picked, flip=draws.astype(bool), draws=draws)

    with Prefetch(read, 0, len(pieces)) as batches:
        for piece, (x0, label) in batches:
            here = slice(pieces[piece].start - first, pieces[piece].stop - first)
            labels[here] = label
            for side, images in enumerate((x0, x0[:, :, ::-1])[: plan.sides]):
                with np.errstate(over="ignore"):  # checked below
                    moments[here, side] = encode(images)
            _check_finite(moments[here], plan)
            progress.step()
    return moments, labels


def _check_finite(moments: np.ndarray, plan: Plan) -> None:
    mean, log_variance = np.split(moments, 2, axis=-1)
    if not np.isfinite(mean).all() or np.isnan(log_variance).any():
        raise NonFiniteError(
            "write_latents: need finite means and log variances, got nan or inf in "
            f"dtype={plan.dtype!r} from {plan.encoder}. Use float32, or another "
            "encoder."
        )
