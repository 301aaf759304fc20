"""SiT with Model-Guidance on latents of ImageNet: guided, one evaluation per step.

Run:      python -m jaxguide.train --config configs/mg_imagenet.py:XL/2,256
          Sizes S, B, L, XL with patch 2, 4, 8; resolutions 256, 512; "tiny" runs in
          seconds on made latents. With the scale as an input of the network:
          --config.loss.name=scale_aware_model_guidance
Data:     data/imagenet256 or data/imagenet512, written by jaxguide.data.encode.
Cost:     printed at start (parameters, FLOPs per step): 5/3 of plain training once
          guidance has started. Published length: 7 M steps from nothing, or 500,000
          from a trained network. Not run here.
Expected: not measured here. The paper: SiT-XL/2 has FID 1.34 at 256 (1.39 is what two
          users and the author measured on one machine) and 2.24 at 512, B/2 at 400,000
          steps 6.49.
Source:   Tang et al. 2025, arXiv:2502.12154, and the released code.
"""

from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from jaxguide.train.imagenet import imagenet_run


def get_config(arg: str = "XL/2,256") -> TrainConfig:
    """`arg`: size, resolution and "tiny", separated by commas."""
    loss = LossConfig(
        name="model_guidance",
        path="linear",
        kind="velocity",
        label_drop=0.1,
        weight=0.45,
        t_hi=0.75,
        start_step=100_000,
    )
    run = imagenet_run("mg", arg, loss, ModelConfig(time_scale=1.0))
    run.preview_scale = 1.0
    return run
