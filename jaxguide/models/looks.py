"""Which published layout the names of arrays look like."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# Formats of `python -m jaxguide.convert`, by an array that only their files have. The
# first match counts.
LANDMARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("decoder_blocks.0.attn.qkv.weight", ("repa-legacy",)),
    ("x_embedder.proj.weight", ("dit", "sit", "repa", "mg", "repa-legacy")),
    (
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
        ("diffusers-dit",),
    ),
    ("pos_embed.proj.weight", ("diffusers-dit",)),
    ("encoder.conv_in.weight", ("autoencoder-kl",)),
    ("decoder.conv_in.weight", ("autoencoder-kl",)),
    ("first_stage_model.encoder.conv_in.weight", ("autoencoder-kl",)),
    ("encoder.layers.0.weight", ("taesd",)),
    ("decoder.layers.0.weight", ("taesd",)),
    ("Conv2d_1a_3x3.conv.weight", ("inception",)),
    ("softmax/weights", ("inception",)),
    ("_conv_stem.weight", ("efficientnet-lite0",)),
)
SHOWN = 6
# Our files: what they are for, by the format that they say.
OURS = {
    "jaxguide-weights-1": "weights to sample: load_weights, or --config.checkpoint",
    "jaxguide-autoencoder-1": "an autoencoder: load_autoencoder, or "
    "--config.autoencoder",
    "jaxguide-features-1": "a feature network: load_features",
}


def published_as(names: Collection[str]) -> tuple[str, ...]:
    """The formats that arrays of these names may be of; () if of none that is known.

    >>> published_as({"_conv_stem.weight"})
    ('efficientnet-lite0',)
    """
    there = set(names)
    return next((formats for name, formats in LANDMARKS if name in there), ())


def inside(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Formats that names look like behind something that stands before all of them.

    >>> inside(["net.x_embedder.proj.weight", "step"])
    {'net.': ('dit', 'sit', 'repa', 'mg', 'repa-legacy')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        for landmark, formats in LANDMARKS:
            if name.endswith(f".{landmark}"):
                found.setdefault(name.removesuffix(landmark), formats)
                break
    return found


def hint(names: Collection[str]) -> str:
    """Which published layout names look like, and how it is converted; or ""."""
    formats = published_as(names)
    behind = inside(names)
    if not formats and not behind:
        return ""
    cut = "" if formats else next(iter(behind))
    formats = formats or behind[cut]
    option = f" --option prefix={cut}" if cut else ""
    return (
        f"It looks like a published {' or '.join(formats)}: "
        f"python -m jaxguide.convert --from {formats[0]}{option} FILE OUT."
    )


def few(names: Iterable[str]) -> str:
    """The first names of many."""
    names = list(names)
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, ..."
