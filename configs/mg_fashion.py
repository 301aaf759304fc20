"""Model-Guidance against classifier-free guidance on Fashion-MNIST, 28 x 28.

Two networks, equal but for the loss: "plain" is sampled with CFG, two evaluations per
step, "mg" has learnt its guided prediction and is sampled with one.

Run:      python -m jaxguide.train --config configs/mg_fashion.py:plain
          python -m jaxguide.train --config configs/mg_fashion.py:mg
Cost:     3,000 steps of 64 images, 0.7 M parameters, seed 0.
Expected: not measured yet.
"""

from jaxguide.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    tiny,
)

WEIGHT = 0.45  # of the published run; the learnt scale is 1 / (1 - WEIGHT)


def get_config(arg: str = "mg") -> TrainConfig:
    """`arg`: "mg" (default), "plain", or "tiny", which is "mg" in seconds."""
    guided = arg != "plain"
    config = TrainConfig(
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(patch=4, width=96, depth=4, heads=4),
        loss=LossConfig(
            name="model_guidance" if guided else "flow_matching",
            weight=WEIGHT,
            t_hi=0.75,
            start_step=500,
        ),
        optimizer=OptimizerConfig(
            schedule="wsd", peak=1e-3, warmup_steps=200, decay_steps=1000
        ),
        folder=f"outputs/mg-fashion/{arg}",
        steps=3000,
        batch_size=64,
        seed=0,
        ema=(0.998,),
        log_every=50,
        save_every=500,
        snapshot_every=500,
        preview_scale=1.0 if guided else 1 / (1 - WEIGHT),
    )
    return tiny(config) if arg == "tiny" else config
