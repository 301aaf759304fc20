"""DiT-XL/2 at 256 pixels: 250 steps of DDPM, CFG 1.5 on 3 of 4 channels.

Run:      python -m jaxguide.convert --from dit DiT-XL-2-256x256.pt \\
              weights/dit-xl2-256.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/dit_xl2_256.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/dit_xl2_256.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/dit-xl2-256-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     500 NFE per image, 119 TFLOP; 50,000 images 5.9e18 FLOP, decoding not counted.
          Not run here.
Expected: not run here. Published: FID 2.27 (2.21 of the PyTorch port), sFID 4.60, IS
          278.2, precision 0.83, recall 0.57; without guidance
          (--config.columns="('none',)") 9.62, 6.85, 121.5, 0.67, 0.67. The authors hold
          1.5 on 3 channels for about 1.375 on all 4 (--config.guided_channels=0), FID
          2.23.
Source:   Peebles & Xie 2023, arXiv:2212.09748, Tab. 2; facebookresearch/DiT@ed81ce2,
          sample_ddp.py.
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "dit-xl2-256",
        arg,
        guidance=[dict(name="cfg", scale=1.5)],
        sampler="ddpm(variance='learned')",
        tiny_sampler="ddpm(variance='small')",
        grid="respaced",
        label_order="random",
    )
