"""SiT-XL/2 with Model-Guidance at 256 pixels: Euler-Maruyama, one pass per step.

Run:      python -m jaxguide.convert --from mg SiT-XL-2-MG.pt \\
              weights/sit-xl2-mg.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/sit_xl2_mg.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/sit_xl2_mg.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/sit-xl2-mg-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     250 NFE per image, 59 TFLOP; 50,000 images 3.0e18 FLOP, decoding not counted.
          Not run here.
Expected: not run here. Published: FID 1.34, IS 321.5, sFID 4.58, precision 0.81, recall
          0.65; two users and the author on one machine: FID 1.39, IS 300.4. The authors
          use torch-fidelity (--config.protocol=torch-fidelity). A checkpoint that takes
          the scale: --config.learnt_scale=1.45.
Source:   Tang et al. 2025, arXiv:2502.12154; tzco/Diffusion-wo-CFG, sampler.py.
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "sit-xl2-mg",
        arg,
        columns=("none",),
        sampler="euler_maruyama",
        grid="uniform(last_step=0.04)",
        rounding="floor",
    )
