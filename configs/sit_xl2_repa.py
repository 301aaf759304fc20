"""SiT-XL/2 with REPA at 256 pixels: Euler-Maruyama, CFG 1.8 for t < 0.7.

Run:      python -m jaxguide.convert --from repa SiT-XL-2-REPA.pt \\
              weights/sit-xl2-repa.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/sit_xl2_repa.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/sit_xl2_repa.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/sit-xl2-repa-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     422 NFE per image; 50,000 images 5.0e18 FLOP, decoding not counted. Not run
          here.
Expected: not run here. Published: FID 1.42, sFID 4.70, IS 305.7, precision 0.80, recall
          0.65.
Source:   Yu et al. 2024, arXiv:2410.06940; sihyun-yu/REPA@67f7145, generate.py and
          samplers.py (guidance for 0 <= t <= 0.7; no grid point is at 0.7;
          where one is, t_hi=0.70001 guides its step too).
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "sit-xl2-repa",
        arg,
        guidance=[dict(name="cfg", scale=1.8, t_lo=0.0, t_hi=0.7)],
        sampler="euler_maruyama",
        grid="uniform(last_step=0.04)",
        label_order="random",
        rounding="floor",
    )
