"""What the training runs on small images have in common."""

from typing import Any

from jaxguide.data.config import DataConfig
from jaxguide.train.config import ModelConfig, OptimizerConfig, TrainConfig, tiny
from jaxguide.train.loss_config import LossConfig


def small_run(
    folder: str,
    arg: str,
    *,
    data: DataConfig,
    model: ModelConfig,
    steps: int,
    decay_steps: int,
    loss: LossConfig | None = None,
    peak: float = 1e-3,
    warmup_steps: int = 200,
    **fields: Any,
) -> TrainConfig:
    """A run that a CPU finishes in minutes: seed 0, batches of 64, a falling end.

    Args:
        folder: below `outputs/`.
        arg: "tiny" is the same run in seconds.
        data, model: see there.
        steps: length of the run.
        decay_steps: the last of them, in which the learning rate falls to 0.
        loss: what is learnt; flow matching by default.
        peak, warmup_steps: of the learning rate.
        **fields: further ones of `TrainConfig`.
    """
    config = TrainConfig(
        data=data,
        model=model,
        loss=loss or LossConfig(),
        optimizer=OptimizerConfig(
            schedule="wsd" if decay_steps else "constant",
            peak=peak,
            warmup_steps=warmup_steps,
            decay_steps=decay_steps,
        ),
        folder=f"outputs/{folder}",
        steps=steps,
        **{"log_every": 100, "save_every": 500, "snapshot_every": 500, **fields},
    )
    return tiny(config) if arg == "tiny" else config
