"""What `python -m jaxguide.sample` makes, as plain data.

A file in `configs/` has a function `get_config(arg)` that returns a `SampleConfig`;
`build.py` turns the names in it into objects.
"""

from dataclasses import dataclass, field
from typing import Any

from jaxguide.runtime import values

BATCHED = {"auto": None, "yes": True, "no": False}
LABEL_ORDERS = ("balanced", "random")
ROUNDINGS = ("nearest", "floor")
PARALLEL = ("data", "fsdp", "branches")
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
        labels: "all", or names, places and ranges: "0,3,5-7" or "bag,coat". Where names
            are numbers themselves, "#3" is a place, and "'3'", in quotes, a name.
        negative: label to push away from, for the transform "negative".
        also: label to add or remove, for the transform "compose".
        per_class: images per class in every column group.
        seed: of noise and masks; an image depends on seed, label and its number alone.
        batch_size: images per call (of a set: per device and call); changes speed and
            memory, and no more than the rounding of the images.
        decode_batch: images per device that the autoencoder decodes at a time.
        batched: guidance branches in one forward pass: "yes", "no", as many as have so
            many rows per device, such as "64"; "auto" chooses by the device.
        parallel: what the devices of a process share: "data" cuts the batch and copies
            the weights. "fsdp" cuts the weights too, and fetches them block by block,
            for networks larger than one device. "branches", for pictures of fewer
            images than devices, has the devices that share an image evaluate different
            branches of its guidance.
        dtype: of weights and computation: "auto" is bfloat16 on a GPU or TPU and
            float32 on a CPU. Times, normalisations, softmax and the state of the
            sampler are float32 in any case. In float32 a GPU may still multiply in TF32
            and a TPU in bfloat16: JAX_DEFAULT_MATMUL_PRECISION=float32 forbids it.
        zoom: edge of an image pixel in the picture.
        folder: where the picture and the JSON go.
        num_samples: images of the set; 0 makes one picture.
        label_order: of a set: "balanced" goes round the labels, "random" draws them.
        rounding: of a set, to 8 bits: "nearest", or "floor" as REPA's and MG's code.
        shard_size: images per file; a multiple of `batch_size` wastes no row of a call.
        adm_file: also one samples.npz with `arr_0`, as other evaluators read.
    """

    checkpoint: str = "fashion"
    weak_checkpoint: str = ""
    autoencoder: str = ""
    learnt_scale: float = 1.0
    guidance: list[dict[str, Any]] = field(default_factory=list)
    columns: tuple[str, ...] = (UNGUIDED,)
    guided_channels: int = values.number(-1, -1)
    sampler: str = "euler"
    grid: str = "uniform"
    num_steps: int = values.number(50, 1, 100_000)
    labels: str = "all"
    negative: str = "#0"
    also: str = "#0"
    per_class: int = values.number(4, 1, 100_000)
    seed: int = values.seed()
    batch_size: int = values.number(64, 1)
    decode_batch: int = values.number(8, 1)
    batched: str = "auto"
    parallel: str = "data"
    dtype: str = "auto"
    zoom: int = values.number(2, 1, 64)
    folder: str = "outputs/sample"
    num_samples: int = values.number(0, 0)
    label_order: str = "balanced"
    rounding: str = "nearest"
    shard_size: int = values.number(1000, 1)
    adm_file: bool = False
