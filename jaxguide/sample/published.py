"""What the configs of published checkpoints have in common."""

from typing import Any

from jaxguide.runtime.config_file import variant
from jaxguide.sample.config import SampleConfig

# The labels of the picture in DiT's and SiT's own sample.py.
LABELS = "207,360,387,974,88,979,417,279"
ARGUMENTS = ("", "fid", "tiny")


def published_run(
    name: str,
    arg: str,
    *,
    checkpoint: str = "",
    tiny_sampler: str = "",
    **fields: Any,
) -> SampleConfig:
    """A published network on latents of ImageNet, sampled as its paper does.

    Args:
        name: of the folder of the run.
        arg: "" for a picture of eight classes; "fid" for the set of 50,000 images whose
            FID is published, decoded by weights/sd-vae-ft-ema.safetensors; "tiny" for
            the same guidance and grid on a small network of the package, in seconds.
        checkpoint: weights/`checkpoint`.safetensors; "" is called as the run.
        tiny_sampler: in place of the sampler for "tiny", which has no learned variance;
            "" for the same.
        **fields: of `SampleConfig`.

    Raises:
        InputError: if `arg` is none of these.
    """
    variant(arg, *ARGUMENTS)
    defaults = dict(columns=("cfg",), num_steps=250, labels=LABELS, per_class=1)
    run = SampleConfig(**{**defaults, **fields})
    run.checkpoint = f"weights/{checkpoint or name}.safetensors"
    run.folder = f"outputs/{name}{arg and '-'}{arg}"
    if arg == "fid":
        run.autoencoder = "weights/sd-vae-ft-ema.safetensors"
        run.num_samples, run.labels, run.adm_file = 50_000, "all", True
    if arg == "tiny":
        run.checkpoint, run.sampler = "emoji", tiny_sampler or run.sampler
        run.labels, run.per_class, run.num_steps = "0-1", 2, 3
    return run
