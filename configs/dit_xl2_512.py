"""DiT-XL/2 at 512 pixels: 250 steps of DDPM, CFG 1.5 on 3 of 4 channels.

Run:      python -m jaxguide.convert --from dit DiT-XL-2-512x512.pt \\
              weights/dit-xl2-512.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/dit_xl2_512.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/dit_xl2_512.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/dit-xl2-512-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet512.npz
Cost:     500 NFE per image, 525 TFLOP; 50,000 images 2.6e19 FLOP, decoding not counted.
          Not run here.
Expected: not run here. Published: FID 3.04, sFID 5.02, IS 240.8, precision 0.84, recall
          0.54.
Source:   Peebles & Xie 2023, arXiv:2212.09748, Tab. 3; facebookresearch/DiT@ed81ce2,
          sample_ddp.py.
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "dit-xl2-512",
        arg,
        guidance=[dict(name="cfg", scale=1.5)],
        sampler="ddpm(variance='learned')",
        tiny_sampler="ddpm(variance='small')",
        grid="respaced",
        label_order="random",
        batch_size=16,
    )
