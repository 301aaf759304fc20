"""What the training runs on ImageNet latents have in common."""

import dataclasses

from jaxguide import models
from jaxguide.data.config import DataConfig
from jaxguide.errors import InputError
from jaxguide.train.config import ModelConfig, OptimizerConfig, TrainConfig, tiny
from jaxguide.train.loss_config import LossConfig

RESOLUTIONS = ("256", "512")


def imagenet_run(
    name: str, arg: str, loss: LossConfig, model: ModelConfig
) -> TrainConfig:
    """The run of a DiT or SiT on cached latents of ImageNet.

    AdamW at a constant 1e-4 without warm-up, weight decay or clipping, batches of 256,
    average of decay 0.9999 from the first step on, mirrored examples: so DiT, SiT and
    Model-Guidance trained.

    Args:
        name: of the folder of the run.
        arg: size, resolution and "tiny", separated by commas, in any order:
            "XL/2,512", "B/4", "tiny". The default is "XL/2,256".
        loss: what is learnt.
        model: its width, depth, heads and patch are replaced by those of the size.

    Returns:
        A `TrainConfig`; "tiny" is the same on made latents, in seconds.

    Raises:
        InputError: if a word is none of these, or there are two sizes.

    Source: Peebles & Xie 2023, arXiv:2212.09748, Sec. 4; Ma et al. 2024,
        arXiv:2401.08740, App. B; Tang et al. 2025, arXiv:2502.12154, Sec. 4.1.
    """
    words = arg.split(",")
    pixels, *more = [word for word in words if word in RESOLUTIONS] or ["256"]
    sizes = [word for word in words if word not in (*RESOLUTIONS, "tiny", "")]
    size = models.dit_config(*sizes[:1] or ["XL/2"])
    if sizes[1:] or more:
        raise InputError(
            f"imagenet_run: need one size and one resolution, got arg={arg!r}. "
            "For example XL/2,512."
        )
    same = ("patch", "width", "depth", "heads")
    model = dataclasses.replace(
        model, **{field: getattr(size, field) for field in same}
    )
    label = f"{name}-{'-'.join(sizes or ['XL/2'])}-{pixels}".lower().replace("/", "")
    config = TrainConfig(
        data=DataConfig(name="latents", path=f"data/imagenet{pixels}", flip=True),
        model=model,
        loss=loss,
        optimizer=OptimizerConfig(
            schedule="constant", peak=1e-4, warmup_steps=0, clip=0
        ),
        folder=f"outputs/{label}",
        steps=400_000,
        batch_size=256,
        ema=(0.9999,),
        ema_warmup=False,
        log_every=100,
        save_every=5_000,
        snapshot_every=50_000,
        keep=3,
    )
    if "tiny" not in words:
        return config
    made = DataConfig(name="made_latents", size=int(pixels) // 32, classes=4, flip=True)
    return tiny(dataclasses.replace(config, data=made))
