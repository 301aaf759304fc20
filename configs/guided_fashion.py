"""Companions of the embedded Fashion-MNIST network, for comparisons of guidance.

"mg" and "gft" are the embedded network, trained a little longer to predict what
guidance would make of it; "weak" is what autoguidance pushes away from: the same
architecture, fresh and trained briefly.

Run:      python -m jaxguide.train --config configs/guided_fashion.py:mg
          python -m jaxguide.train --config configs/guided_fashion.py:gft
          python -m jaxguide.train --config configs/guided_fashion.py:weak
Cost:     {COST}
Expected: {EXPECTED}
Source:   Model-Guidance, arXiv:2502.12154, and GFT, arXiv:2501.15420, both from a
          trained network; autoguidance, Karras et al. 2024, arXiv:2406.02507.
"""

from jaxguide.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    tiny,
)

LOSSES = {
    "mg": LossConfig(name="model_guidance", weight=0.45, t_hi=0.75),
    "gft": LossConfig(name="gft"),
    "weak": LossConfig(),
}
STEPS = {"mg": 1000, "gft": 1000, "weak": 1000}


def get_config(arg: str = "mg") -> TrainConfig:
    """`arg`: "mg" (default), "gft", "weak", or "tiny", a fresh "mg" in seconds."""
    name = "mg" if arg == "tiny" else arg
    fresh = arg in ("weak", "tiny")
    steps = STEPS[name]
    config = TrainConfig(
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(patch=4, width=128, depth=6, heads=4),
        loss=LOSSES[name],
        optimizer=OptimizerConfig(
            schedule="constant" if fresh else "wsd",
            peak=1e-3 if fresh else 3e-4,
            warmup_steps=100,
            decay_steps=0 if fresh else steps // 2,
        ),
        start_from="" if fresh else "fashion",
        folder=f"outputs/guided-fashion/{arg}",
        steps=steps,
        batch_size=64,
        seed=0,
        ema=(0.995,),
        log_every=50,
        save_every=250,
        snapshot_every=250,
        preview_scale=1.0 if name == "mg" else 2.0,
    )
    return tiny(config) if arg == "tiny" else config
