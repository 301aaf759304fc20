"""SiT on latents of ImageNet: velocity prediction on the linear path.

Run:      python -m jaxguide.train --config configs/sit_imagenet.py:XL/2,256
          Sizes S, B, L, XL with patch 2, 4, 8; resolutions 256, 512; "tiny" runs in
          seconds on made latents.
Data:     data/imagenet256 or data/imagenet512, written by jaxguide.data.encode.
Cost:     printed at start (parameters, FLOPs per step). Published length: 400,000 steps
          for the ablations, 7 M for XL/2. Not run here.
Expected: not measured here. Published for XL/2 at 7 M steps: FID 8.61 (ODE 9.35) at 256
          without guidance, 2.06 with CFG 1.5 (SDE); at 512 2.62 with CFG.
Source:   Ma et al. 2024, arXiv:2401.08740.
"""

from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from jaxguide.train.imagenet import imagenet_run


def get_config(arg: str = "XL/2,256") -> TrainConfig:
    """`arg`: size, resolution and "tiny", separated by commas."""
    loss = LossConfig(path="linear", kind="velocity", label_drop=0.1)
    model = ModelConfig(time_scale=-1.0, time_offset=1.0)
    return imagenet_run("sit", arg, loss, model)
