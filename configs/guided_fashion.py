"""Companions of the embedded Fashion-MNIST network, for comparisons of guidance.

"mg" and "gft" are the embedded network, trained a little longer to predict what
guidance would make of it; "mg_drop5", "mg_drop20" and "mg_scale" are for ablations:
other shares of hidden labels, and the scale as an input. "weak" is what autoguidance
pushes away from: the same architecture, fresh and trained briefly.

Run:      python -m jaxguide.train --config configs/guided_fashion.py:mg
          python -m jaxguide.train --config configs/guided_fashion.py:gft
          python -m jaxguide.train --config configs/guided_fashion.py:weak
Cost:     500 steps (weak), 600 steps (the others) of 64 images, 1.9 M parameters: about
          10 minutes each on two cores of an AMD EPYC that other work shared (30 to 60
          images/s), jax 0.10.2, float32.
Expected: loss over the last 50 steps, seed 0: weak 0.351, mg 0.228, gft 0.233,
          mg_scale 0.230, mg_drop5 0.227, mg_drop20 0.231. What they do when sampled:
          docs/results.md.
Source:   Model-Guidance, arXiv:2502.12154, and GFT, arXiv:2501.15420, both from a
          trained network; autoguidance, Karras et al. 2024, arXiv:2406.02507.
"""

from dataclasses import replace

from jaxguide.data.config import DataConfig
from jaxguide.runtime.config_file import variant
from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from jaxguide.train.small import small_run

GUIDED = LossConfig(name="model_guidance", weight=0.45, t_hi=0.75)
LOSSES = {
    "mg": GUIDED,
    "mg_drop5": replace(GUIDED, label_drop=0.05),
    "mg_drop20": replace(GUIDED, label_drop=0.2),
    "mg_scale": replace(GUIDED, name="scale_aware_model_guidance", scales=(1.0, 3.0)),
    "gft": LossConfig(name="gft"),
    "weak": LossConfig(),
}


def get_config(arg: str = "mg") -> TrainConfig:
    """`arg`: one of `LOSSES` ("mg" by default), or "tiny", a fresh "mg" in seconds."""
    name = "mg" if arg == "tiny" else variant(arg, *LOSSES, "tiny")
    fresh = arg in ("weak", "tiny")
    return small_run(
        f"guided-fashion/{arg}",
        arg,
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(patch=4, width=128, depth=6),
        loss=LOSSES[name],
        steps=500 if fresh else 600,
        peak=1e-3 if fresh else 3e-4,
        warmup_steps=100,
        decay_steps=0 if fresh else 300,
        start_from="" if fresh else "fashion",
        ema=(0.99,),
        log_every=50,
        save_every=100,
        snapshot_every=300,
        preview_scale=1.0 if name.startswith("mg") else 2.0,
    )
