"""DiT on latents of ImageNet: noise prediction with a learned variance.

Run:      python -m jaxguide.train --config configs/dit_imagenet.py:XL/2,256
          Sizes S, B, L, XL with patch 2, 4, 8; resolutions 256, 512; "tiny" runs in
          seconds on made latents.
Data:     data/imagenet256 or data/imagenet512, written by jaxguide.data.encode.
Cost:     printed at start (parameters, FLOPs per step). Published length: 400,000 steps
          for the ablations, 7 M for XL/2 at 256, 3 M at 512. Not run here.
Expected: not measured here. The paper (Table 2, 4): XL/2 at 7 M steps has FID 9.62 at
          256 without guidance, 2.27 with CFG 1.5; at 512 3.04 with CFG.
Source:   Peebles & Xie 2023, arXiv:2212.09748.
"""

from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from jaxguide.train.imagenet import imagenet_run


def get_config(arg: str = "XL/2,256") -> TrainConfig:
    """`arg`: size, resolution and "tiny", separated by commas."""
    loss = LossConfig(name="ddpm_hybrid", path="ddpm", kind="noise", label_drop=0.1)
    model = ModelConfig(learn_sigma=True, time_scale=1000.0, time_offset=-1.0)
    return imagenet_run("dit", arg, loss, model)
