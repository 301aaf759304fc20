"""SiT-XL/2 at 256 pixels: dopri5 on the ODE, CFG 1.5 on 3 of 4 channels.

Run:      python -m jaxguide.convert --from sit SiT-XL-2-256.pt \\
              weights/sit-xl2-256.safetensors
          python -m jaxguide.convert --from autoencoder-kl sd-vae-ft-ema \\
              weights/sd-vae-ft-ema.safetensors --option family=sd
          A picture of eight classes, then the published set of 50,000 images, which a
          killed run carries on with, and its FID:
          python -m jaxguide.sample --config configs/sit_xl2_ode.py \\
              --config.autoencoder=weights/sd-vae-ft-ema.safetensors
          python -m jaxguide.sample --config configs/sit_xl2_ode.py:fid
          python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/sit-xl2-ode-fid --config.network=inception \\
              --config.weights=pt_inception-2015-12-05-6726825d.pth \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     the adaptive solver decides; two network evaluations for each of its own. Not
          run here.
Expected: not run here. Published: FID 2.15, IS 258.1 (2.08 in issue 31 of the
          repository); without guidance (--config.columns="('none',)") 9.35 to 9.5. One
          error norm for the whole batch, as torchdiffeq has it: images depend on the
          batch size within the tolerance.
Source:   Ma et al. 2024, arXiv:2401.08740; willisma/SiT@947f95b, sample_ddp.py ODE.
"""

from jaxguide.sample.config import SampleConfig
from jaxguide.sample.published import published_run


def get_config(arg: str = "") -> SampleConfig:
    """`arg`: "" for a picture, "fid" for the published set, "tiny" for seconds."""
    return published_run(
        "sit-xl2-ode",
        arg,
        checkpoint="sit-xl2-256",
        guidance=[dict(name="cfg", scale=1.5)],
        sampler="dopri5(rtol=1e-3, atol=1e-6, per_sample=False)",
        tiny_sampler="dopri5(rtol=0.1, atol=0.1, per_sample=False)",
        label_order="random",
    )
