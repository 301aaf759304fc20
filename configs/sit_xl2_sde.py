"""SiT-XL/2 at 256 pixels: 250 steps of Euler-Maruyama, CFG 1.5 on 3 of 4 channels.

Run:      python -m jaxguide.convert --from sit SiT-XL-2-256.pt \\
              weights/sit-xl2-256.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/sit_xl2_sde.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/sit_xl2_sde.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/sit-xl2-sde-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     500 NFE per image, 119 TFLOP; 50,000 images 5.9e18 FLOP, decoding not counted.
          Not run here. The authors' code evaluates the network twice as often for the
          same drift.
Expected: not run here. Published: FID 2.06, sFID 4.49, IS 277.5 (270.3 in the
          repository), precision 0.83, recall 0.59; without guidance
          (--config.columns="('none',)") 8.61 (8.3), 6.32, 131.7, 0.68, 0.67.
Source:   Ma et al. 2024, arXiv:2401.08740; willisma/SiT@947f95b, sample_ddp.py SDE.
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "sit-xl2-sde",
        arg,
        checkpoint="sit-xl2-256",
        guidance=[dict(name="cfg", scale=1.5)],
        sampler="euler_maruyama",
        grid="uniform(last_step=0.04)",
        label_order="random",
    )
