"""Fashion-MNIST, 28 x 28: the grey checkpoint that ships with the package.

Run:      python -m jaxguide.train --config configs/fashion.py
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
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(patch=4, width=128, depth=6, heads=4),
        loss=LossConfig(path="linear", kind="velocity", label_drop=0.1),
        optimizer=OptimizerConfig(
            schedule="wsd", peak=1e-3, warmup_steps=200, decay_steps=2000
        ),
        folder="outputs/fashion",
        steps=5600,
        batch_size=64,
        seed=0,
        ema=0.999,
        log_every=100,
        save_every=500,
        snapshot_every=1000,
    )
    return tiny(config) if arg == "tiny" else config
