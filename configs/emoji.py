"""Emoji of ten classes, 16 x 16: the colour checkpoint that ships with the package.

Run:      python -m jaxguide.train --config configs/emoji.py \\
              --config.data.path=emoji32.npz
Data:     not part of the package; `jaxguide/data/emoji.py` says what the file holds.
Cost:     6,700 steps of 32 images, 1.9 M parameters: 90 minutes on one core of an AMD
          EPYC that other work shared (25 to 65 images/s), jax 0.10.2, float32.
Expected: loss 0.142 over the last 100 steps (seed 0); faces, people, hearts, clocks,
          moons, fruit and signs are recognisable, hands and animals often, flags by
          colour alone. No metric was measured.
"""

from jaxguide.data.config import DataConfig
from jaxguide.runtime.config_file import variant
from jaxguide.train.config import LossConfig, ModelConfig, TrainConfig
from jaxguide.train.small import small_run


def get_config(arg: str = "") -> TrainConfig:
    """The run; `arg="tiny"` is the same in seconds."""
    return small_run(
        "emoji",
        variant(arg, "", "tiny"),
        data=DataConfig(name="emoji", path="data/emoji32.npz", size=16),
        model=ModelConfig(patch=2, width=128, depth=6),
        loss=LossConfig(t_sampling="logit_normal"),
        steps=6700,
        decay_steps=2500,
        batch_size=32,
    )
