"""What `python -m jaxguide.sample` makes, as plain data.

A file in `configs/` has a function `get_config(arg)` that returns a `SampleConfig`;
`build.py` turns the names in it into objects.
"""

from dataclasses import dataclass, field
from typing import Any

BATCHED = {"auto": None, "yes": True, "no": False}
UNGUIDED = "none"


@dataclass
class SampleConfig:
    """One picture: `python -m jaxguide.sample --config configs/demo.py`.

    With `num_samples` it is a set of images in files instead, for evaluation, made by
    all devices of all hosts; see `sets`.

    Args:
        checkpoint: a name in the package ("fashion", "emoji") or a .safetensors file.
        weak_checkpoint: for autoguidance, likewise; "" for none.
        autoencoder: file of a converted autoencoder, for networks of latents; "" shows
            latents as false colours.
        learnt_scale: for a network that takes the scale of its guidance as an input
            (scale-aware Model-Guidance, GFT, distilled CFG); 1 is unguided.
        guidance: ordered list of dict(name=..., scale or weight, t_lo, t_hi, ...);
            `python -m jaxguide.sample --list` shows all names.
        columns: column groups of the picture: "none", or names of the list joined
            by "+", such as "cfg+sg_prev".
        guided_channels: guide so many of the first channels; 0 is all, -1 what the
            checkpoint was published with.
        sampler: one of `SAMPLERS`, with arguments if wanted: "ddim(eta=1.0)",
            "recurrent(sampler='ddim', repeats=2)"; "dopri5" solves the ODE adaptively
            and looks at neither grid nor num_steps.
        grid: spacing of noise times, one of `GRIDS`, likewise: "shifted(shift=3.0)".
        num_steps: steps from noise to data.
        labels: "all", or names, numbers and ranges: "0,3,5-7" or "bag,coat".
        negative: label to push away from, for the transform "negative".
        also: label to add or remove, for the transform "compose".
        per_class: images per class in every column group.
        seed: of noise and masks; an image depends on seed, label and its number alone.
        batch_size: images per call (of a set: per device and call); changes speed and
            memory, and no more than the rounding of the images.
        decode_batch: images per device that the autoencoder decodes at a time.
        batched: guidance branches in one forward pass: "auto", "yes", "no".
        dtype: of the computation, "float32" or "bfloat16".
        zoom: edge of an image pixel in the picture.
        folder: where the picture and the JSON go.
        num_samples: images of the set; 0 makes one picture.
        label_order: of a set: "balanced" goes round the labels, "random" draws them.
        rounding: of a set, to 8 bits: "nearest", or "floor" as REPA's and MG's code.
        shard_size: images per file.
        adm_file: also one samples.npz with `arr_0`, as other evaluators read.
    """

    checkpoint: str = "fashion"
    weak_checkpoint: str = ""
    autoencoder: str = ""
    learnt_scale: float = 1.0
    guidance: list[dict[str, Any]] = field(default_factory=list)
    columns: tuple[str, ...] = (UNGUIDED,)
    guided_channels: int = -1
    sampler: str = "euler"
    grid: str = "uniform"
    num_steps: int = 50
    labels: str = "all"
    negative: str = "0"
    also: str = "0"
    per_class: int = 4
    seed: int = 0
    batch_size: int = 64
    decode_batch: int = 8
    batched: str = "auto"
    dtype: str = "float32"
    zoom: int = 2
    folder: str = "outputs/sample"
    num_samples: int = 0
    label_order: str = "balanced"
    rounding: str = "nearest"
    shard_size: int = 1000
    adm_file: bool = False
