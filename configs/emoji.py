"""Emoji of ten classes, 16 x 16: the colour checkpoint that ships with the package.

Run:      python -m jaxguide.train --config configs/emoji.py
Cost:     not measured
Expected: not measured
"""

from jaxguide.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    tiny,
)


def get_config(arg: str = "") -> TrainConfig:
    """The run; `arg="tiny"` is the same in seconds."""
    config = TrainConfig(
        data=DataConfig(name="emoji", path="data/emoji32.npz", size=16),
        model=ModelConfig(patch=2, width=128, depth=6, heads=4),
        loss=LossConfig(label_drop=0.1, t_sampling="logit_normal"),
        optimizer=OptimizerConfig(
            schedule="wsd", peak=1e-3, warmup_steps=200, decay_steps=2500
        ),
        folder="outputs/emoji",
        steps=6700,
        batch_size=32,
        seed=0,
        ema=0.999,
        log_every=100,
        save_every=500,
        snapshot_every=500,
    )
    return tiny(config) if arg == "tiny" else config
